"""Searching and reading the knowledge base."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

from litestar import Controller, get, post
from litestar.params import FromPath, FromQuery, Parameter, QueryParameter
from msgspec import Struct

from appliance.api.auth import Caller, Desk
from appliance.api.problems import documented
from appliance.domain.passage import Article
from appliance.domain.policy import MESSAGE_MAX_CHARS, Category, QuarantineState
from appliance.services.knowledge import SEARCH_MAX
from appliance.storage.records import Quarantined

Text = Annotated[str, Parameter(min_length=1, max_length=MESSAGE_MAX_CHARS)]

decision = partial(post, status_code=200, responses=documented(400, 401, 403, 404, 503))
"""What an administrator does with one sentence that was kept out."""


class SearchPage(Struct):
    """Passages, best first."""

    items: list[dict[str, Any]]


class QuarantinePage(Struct):
    """Sentences of articles that wait or waited for an administrator, oldest first."""

    items: list[Quarantined]


class KnowledgeController(Controller):
    """Articles, for everybody with a key or a session; their quarantine, for admins."""

    path = "/kb"
    tags = ("Knowledge",)

    @get("/search", responses=documented(400, 401, 503))
    async def search(
        self,
        principal: Caller,
        appliance: Desk,
        q: Text,
        limit: Annotated[int, Parameter(ge=1, le=SEARCH_MAX)] = 5,
        category: FromQuery[Category | None] = None,
    ) -> SearchPage:
        """Passages for a text, best first. ``category`` decides near ties and hides nothing."""
        found = await appliance.ready.knowledge.search(q, limit=limit, category=category)
        return SearchPage([passage.as_result() for passage in found])

    @get("/articles/{article_id:path}", responses=documented(400, 401, 404, 503))
    async def get_article(
        self, article_id: FromPath[str], principal: Caller, appliance: Desk
    ) -> Article:
        """One article. Ids come from a desk's own files and may hold slashes."""
        return await appliance.ready.knowledge.article(article_id.removeprefix("/"))

    @get("/quarantine", responses=documented(400, 401, 403, 503))
    async def list_quarantine(
        self,
        principal: Caller,
        appliance: Desk,
        wanted: Annotated[QuarantineState | None, QueryParameter(name="state")] = None,
    ) -> QuarantinePage:
        """Sentences that were kept out of articles. They are untrusted text: show them as such."""
        return QuarantinePage([*await appliance.quarantine.list(principal, wanted)])

    @decision("/quarantine/{quarantine_id:str}/release")
    async def release(
        self, quarantine_id: FromPath[str], principal: Caller, appliance: Desk
    ) -> Quarantined:
        """Put a sentence back into its article; the next query sees it."""
        return await appliance.quarantine.decide(principal, quarantine_id, "released")

    @decision("/quarantine/{quarantine_id:str}/remove")
    async def remove(
        self, quarantine_id: FromPath[str], principal: Caller, appliance: Desk
    ) -> Quarantined:
        """Keep a sentence out for good, also when the article is imported again."""
        return await appliance.quarantine.decide(principal, quarantine_id, "removed")
