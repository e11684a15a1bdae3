"""What customers thought of answers."""

from __future__ import annotations

from sqlalchemy import select

from appliance.storage.records import Feedback, Rating
from appliance.storage.repository import Repository, columns_for
from appliance.storage.tables import feedback
from appliance.storage.types import new_id, utc_now

_COLUMNS = columns_for(Feedback, feedback)


class FeedbackRepository(Repository):
    """At most one opinion a message."""

    def put(
        self, message_id: str, conversation_id: str, rating: Rating, comment: str | None = None
    ) -> Feedback:
        """Store the opinion, in place of an earlier one on the same message."""
        now = utc_now()
        statement = (
            self._insert(feedback)
            .values(
                id=new_id(),
                message_id=message_id,
                conversation_id=conversation_id,
                rating=rating,
                comment=comment,
                created_at=now,
                updated_at=now,
            )
            .on_conflict_do_update(
                index_elements=["message_id"],
                set_={"rating": rating, "comment": comment, "updated_at": now},
            )
        )
        return self._one(Feedback, statement.returning(*_COLUMNS))

    def for_conversation(self, conversation_id: str) -> dict[str, Feedback]:
        """The opinions on a conversation's messages, by message id."""
        statement = select(*_COLUMNS).where(feedback.c.conversation_id == conversation_id)
        found = self._all(Feedback, statement)
        return {opinion.message_id: opinion for opinion in found}
