"""The desk's own golden set."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict

from sqlalchemy import delete, func, select, union

from appliance.storage.records import GoldenRow
from appliance.storage.repository import Repository, columns_for
from appliance.storage.tables import (
    conversations,
    feedback,
    golden_items,
    learning_examples,
    messages,
)
from appliance.storage.types import utc_now

_COLUMNS = columns_for(GoldenRow, golden_items)
_c = golden_items.c


class GoldenRepository(Repository):
    """Items by id; an item's id is made of what is asked, so that the same question is one item."""

    def put(self, rows: Iterable[GoldenRow]) -> None:
        """Store items, in place of those with the same id."""
        now = utc_now()
        for row in rows:
            values = asdict(row)
            said = {key: value for key, value in values.items() if key != "id"}
            self._connection.execute(
                self._insert(golden_items)
                .values(**values, created_at=now)
                .on_conflict_do_update(index_elements=["id"], set_=said)
            )

    def list(self, source: str | None = None) -> Sequence[GoldenRow]:
        """By source, then by id."""
        statement = select(*_COLUMNS).order_by(_c.source, _c.id)
        return self._all(
            GoldenRow, statement if source is None else statement.where(_c.source == source)
        )

    def remove(self, *, item_id: str | None = None, source: str | None = None) -> int:
        """Remove an item, or all of a source; how many there were."""
        chosen = _c.id == item_id if source is None else _c.source == source
        return self._connection.execute(delete(golden_items).where(chosen)).rowcount

    def remove_built(self) -> None:
        """Remove what was built, before it is built anew."""
        self._connection.execute(delete(golden_items).where(_c.built))

    def conversations(self) -> Sequence[str]:
        """Ids of conversations that somebody confirmed or corrected: solved ones, those with a good
        opinion on an answer, and those with a labelled message."""
        solved = select(conversations.c.id).where(conversations.c.status == "resolved")
        liked = select(feedback.c.conversation_id).where(feedback.c.rating == "up")
        labelled = select(messages.c.conversation_id).join(
            learning_examples, learning_examples.c.message_id == messages.c.id
        )
        found = union(solved, liked, labelled).subquery()
        return list(self._connection.scalars(select(found.c.id).order_by(found.c.id)))

    def keys(self) -> frozenset[str]:
        """Keys of all texts: what must not train."""
        return frozenset(self._connection.scalars(select(_c.text_key).distinct()))

    def stand(self) -> str:
        """Changes whenever the texts of the set do."""
        count, latest = self._connection.execute(
            select(func.count(), func.max(_c.created_at)).select_from(golden_items)
        ).one()
        return f"{count}:{latest}"
