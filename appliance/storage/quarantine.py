"""Sentences of articles that wait for an administrator, and what was decided on them.

Whoever changes one holds the knowledge base's lock, so that an import and a release cannot
interleave.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import timedelta

from sqlalchemy import bindparam, delete, select, update

from appliance.domain.passage import Article
from appliance.domain.policy import QuarantineState
from appliance.domain.screening import Finding
from appliance.storage.records import Quarantined
from appliance.storage.repository import Repository, columns_for
from appliance.storage.tables import UNPLACED
from appliance.storage.tables import kb_originals as originals
from appliance.storage.tables import kb_quarantine as quarantine
from appliance.storage.types import new_id, utc_now

_COLUMNS = columns_for(Quarantined, quarantine)
_c = quarantine.c
_o = originals.c


class QuarantineRepository(Repository):
    """Held sentences by id and by article; originals of the articles that have any."""

    def list(self, state: QuarantineState | None = None) -> Sequence[Quarantined]:
        """Oldest first; all of them, or those in one state."""
        statement = select(*_COLUMNS).order_by(_c.created_at, _c.id)
        return self._all(
            Quarantined, statement if state is None else statement.where(_c.state == state)
        )

    def get(self, quarantine_id: str) -> Quarantined | None:
        return self._first(Quarantined, select(*_COLUMNS).where(_c.id == quarantine_id))

    def hold(self, article_id: str, findings: Iterable[Finding]) -> None:
        """Add sentences that nothing is known of yet."""
        now = utc_now()
        rows = [
            {**asdict(each), "id": new_id(), "article_id": article_id, "state": "held"}
            # Apart, so that lists keep the order of the text.
            | {"created_at": now + timedelta(microseconds=at)}
            for at, each in enumerate(findings)
        ]
        if rows:
            self._connection.execute(self._insert(quarantine), rows)

    def decide(self, quarantine_id: str, state: QuarantineState, decided_by: str) -> Quarantined:
        """Release or remove a sentence that is there."""
        statement = (
            update(quarantine)
            .where(_c.id == quarantine_id)
            .values(state=state, decided_by=decided_by, decided_at=utc_now())
        )
        return self._one(Quarantined, statement.returning(*_COLUMNS))

    def drop(self, quarantine_ids: Iterable[str]) -> None:
        """Forget sentences."""
        gone = [{"gone": each} for each in quarantine_ids]
        if gone:
            self._connection.execute(delete(quarantine).where(_c.id == bindparam("gone")), gone)

    def original(self, article_id: str) -> Article | None:
        """The article as it was imported, if a sentence of it is kept out."""
        statement = select(_o.article_id.label("id"), _o.question, _o.answer, _o.category).where(
            _o.article_id == article_id
        )
        return self._first(Article, statement)

    def originals(self) -> frozenset[str]:
        """Ids of the articles that have sentences kept out."""
        return frozenset(self._connection.scalars(select(_o.article_id)))

    def keep_original(self, article: Article) -> None:
        """Store an article as imported; a new one is ``UNPLACED`` until the articles are saved."""
        insert = self._insert(originals)
        values = asdict(article)
        values["article_id"] = values.pop("id")
        self._connection.execute(
            insert.values(position=UNPLACED, **values).on_conflict_do_update(
                index_elements=["article_id"], set_=values
            )
        )

    def drop_original(self, article_id: str) -> None:
        """Forget an original that is shown whole, or not at all any more."""
        self._connection.execute(delete(originals).where(_o.article_id == article_id))
