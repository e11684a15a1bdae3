"""What is kept out of articles, and what saving them did."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from appliance.domain.policy import ArticlePart, QuarantineReason, QuarantineState


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A sentence of an article that nobody sees before an administrator releases it.

    ``digest`` knows it again in a later import of the article; ``decided_by`` released or removed
    it.
    """

    id: str
    article_id: str
    part: ArticlePart
    sentence: str
    digest: str
    reason: QuarantineReason
    state: QuarantineState
    created_at: datetime
    decided_at: datetime | None
    decided_by: str | None


@dataclass(frozen=True, slots=True)
class KnowledgeChange:
    """What saving articles did, in numbers of articles, and the version that is now in force.

    ``unchanged`` counts articles that were given and already stored word for word. ``quarantined``
    are the sentences of the given articles that wait for an administrator, ``withheld`` the ids of
    those articles that wait with them as a whole, ``cleaned`` of those that lost invisible
    characters.
    """

    added: int
    changed: int
    removed: int
    unchanged: int
    version: int
    quarantined: tuple[Quarantined, ...] = ()
    withheld: tuple[str, ...] = ()
    cleaned: tuple[str, ...] = ()
