"""The knowledge base as people use it: import, list, search, read."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace as with_changes

from appliance.domain.passage import Article, Passage
from appliance.domain.ports import Encoder, Search
from appliance.domain.text import clean
from appliance.errors import InvalidInput, NotFound
from appliance.services.access import OPERATOR, Principal
from appliance.services.quarantine import save_screened
from appliance.storage.database import Database, Records
from appliance.storage.records import KnowledgeChange

SEARCH_MAX = 50


class StoredArticles:
    """The database as the ``ArticleSource`` of the knowledge base."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def digest(self) -> str:
        """See ``ArticleSource``."""
        return await self._database.read(lambda records: records.knowledge.digest())

    async def articles(self) -> tuple[str, Sequence[Article]]:
        """See ``ArticleSource``."""
        return await self._database.read(
            lambda records: (records.knowledge.digest(), records.knowledge.articles())
        )


async def save_articles(
    database: Database,
    articles: Sequence[Article],
    *,
    replace: bool,
    hidden: Mapping[str, Collection[str]] | None = None,
    by: Principal = OPERATOR,
) -> KnowledgeChange:
    """Store articles by id, in one transaction; the next query sees them, without the sentences
    that wait for an administrator.

    :param hidden: what invisible characters the file held, see ``importers.Loaded``.
    """

    def work(records: Records) -> KnowledgeChange:
        before = records.knowledge.version()
        change = save_screened(records, articles, hidden or {}, replace_all=replace)
        if change.version != before:
            records.events.add(
                "kb.updated", conversation_id=None, user_id=None, data={"version": change.version}
            )
        counts = {
            "replace": replace,
            "added": change.added,
            "changed": change.changed,
            "removed": change.removed,
            "unchanged": change.unchanged,
            "quarantined": len(change.quarantined),
            "version": change.version,
        }
        records.audit.add(by.owner, "kb.import", "knowledge", counts)
        return with_changes(change, cleaned=tuple(hidden or ()))

    return await database.write(work)


class Knowledge:
    """Reads and searches articles."""

    def __init__(self, database: Database, encoder: Encoder, search: Search) -> None:
        self._database = database
        self._encoder = encoder
        self._search = search

    async def article(self, article_id: str) -> Article:
        """:raises NotFound: there is no such article."""
        found = await self._database.read(lambda records: records.knowledge.get(article_id))
        if found is None:
            raise NotFound("There is no such article.")
        return found

    async def search(
        self, text: str, *, limit: int, category: str | None = None
    ) -> tuple[Passage, ...]:
        """Passages for a text, best first. ``category`` reorders near ties and hides nothing.

        :raises InvalidInput: the text is empty.
        """
        text = clean(text)
        if not text:
            raise InvalidInput("The text to search for is empty.")
        vector = await self._encoder.encode_one(text)
        return await self._search.search(
            text, vector, limit=max(1, min(limit, SEARCH_MAX)), category=category
        )
