"""What people say of messages, for the heads to learn from."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from sqlalchemy import func, select

from appliance.domain.examples import Example, text_key
from appliance.storage.records import LabelledMessage, Labels
from appliance.storage.repository import Repository, columns_for
from appliance.storage.tables import learning_examples
from appliance.storage.types import new_id, utc_now

_COLUMNS = columns_for(LabelledMessage, learning_examples)
_c = learning_examples.c


class ExampleRepository(Repository):
    """Labelled messages: at most one correction a message, the latest, and what was imported."""

    def correct(self, message_id: str, text: str, labels: Labels, by: str) -> LabelledMessage:
        """Store what a person says of a customer's message; what they say nothing of stays as it
        was said before."""
        now = utc_now()
        said = {**labels, "labelled_by": by, "updated_at": now}
        statement = (
            self._insert(learning_examples)
            .values(
                id=new_id(),
                message_id=message_id,
                text=text,
                text_key=text_key(text),
                source="correction",
                created_at=now,
                **said,
            )
            .on_conflict_do_update(index_elements=["message_id"], set_=said)
        )
        return self._one(LabelledMessage, statement.returning(*_COLUMNS))

    def add(self, examples: Sequence[Example], by: str) -> int:
        """Store examples of a file, but for those that say of a text what was said of it before;
        how many were new."""
        known = {(text_key(e.text), e.category, e.sentiment, e.intent) for e in self.list()}
        now = utc_now()
        rows = []
        for at, example in enumerate(examples):
            key = text_key(example.text)
            said = (key, example.category, example.sentiment, example.intent)
            if said in known:
                continue
            known.add(said)
            # Apart, so that of two lines on one text the later one is the last word.
            then = now + timedelta(microseconds=at)
            rows.append(
                {
                    "id": new_id(),
                    "text": example.text,
                    "text_key": key,
                    "category": example.category,
                    "sentiment": example.sentiment,
                    "intent": example.intent,
                    "source": "import",
                    "labelled_by": by,
                    "created_at": then,
                    "updated_at": then,
                }
            )
        if rows:
            self._connection.execute(self._insert(learning_examples), rows)
        return len(rows)

    def list(self) -> Sequence[LabelledMessage]:
        """All of them, the latest word last."""
        return self._all(LabelledMessage, select(*_COLUMNS).order_by(_c.updated_at, _c.id))

    def stand(self) -> str:
        """Changes whenever one is added, changed or deleted; cheap enough to ask every second."""
        count, latest = self._connection.execute(
            select(func.count(), func.max(_c.updated_at)).select_from(learning_examples)
        ).one()
        return f"{count}:{latest}"
