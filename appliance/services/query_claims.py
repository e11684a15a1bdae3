"""A query that comes again with its ``Idempotency-Key`` finds the message that it brought before,
and of two that come at once one goes on.

That a request was claimed is stored (``services/once.py``); which of the claimed messages are being
answered here and now is known to this process alone.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from appliance.domain.once import Once
from appliance.domain.policy import QUERY_DEADLINE_SECONDS
from appliance.errors import NotFound, UnderWay
from appliance.services.once import Idempotency
from appliance.storage.database import Records
from appliance.storage.records import Conversation, Message, OnceRow

LEASE = timedelta(seconds=QUERY_DEADLINE_SECONDS)


class QueryClaims:
    """Messages that are being answered for requests with a key.

    A ``claim`` is any object that stands for one attempt to accept. The storage may roll an attempt
    back and begin anew, so that what it claimed has to be free again.

    :param retry_after: after how many seconds to come back for an answer that is under way.
    """

    def __init__(self, idempotency: Idempotency, retry_after: Callable[[], int]) -> None:
        self._idempotency = idempotency
        self._retry_after = retry_after
        self._claims: dict[str, object] = {}

    def brought_before(
        self, records: Records, once: Once, claim: object
    ) -> tuple[Conversation, Message, Message | None] | None:
        """Claim a request: None when it is new, else its conversation, the message that it brought
        before, and the reply where there is one; without, the message is claimed to be answered.

        :raises KeyReused: the key came with another request before.
        :raises NotFound: the conversation was deleted meanwhile.
        :raises UnderWay: the same request is being answered.
        """
        row = self._idempotency.claim(records, once, LEASE)
        if row is None or row.message_id is None:
            return None
        return self._again(records, once, row, row.message_id, claim)

    def brings(self, records: Records, once: Once, message: Message, claim: object) -> None:
        """Claim the message that a new request brought."""
        records.idempotency.about(once.id, message_id=message.id)
        self._claims[message.id] = claim

    def free(self, claim: object) -> None:
        """What was claimed for a transaction that came to nothing is free again. A copy is walked:
        other threads of the storage claim meanwhile."""
        for message_id in [key for key, owner in list(self._claims.items()) if owner is claim]:
            self._claims.pop(message_id, None)

    def ended(self, message_id: str) -> None:
        """Nobody answers this message any more."""
        self._claims.pop(message_id, None)

    def _again(
        self, records: Records, once: Once, row: OnceRow, message_id: str, claim: object
    ) -> tuple[Conversation, Message, Message | None]:
        """Runs inside the transaction that holds the request's row, so that of two retries one goes
        on and one is told to wait."""
        message = records.messages.get(message_id)
        if message is None:
            raise NotFound("The conversation was deleted meanwhile.")
        conversation = records.conversations.get(message.conversation_id)
        assert conversation is not None
        reply = records.messages.reply(message.id)
        if reply is not None:
            return conversation, message, reply
        ours = row.holder == self._idempotency.holder
        if ours:
            busy = self._claims.get(message.id) not in (None, claim)
        else:
            # Another process, or one that is no more: a start marks what a crash left.
            busy = message.state == "received" and row.lease_expires_at > datetime.now(UTC)
        if busy:
            raise UnderWay(retry_after=self._retry_after())
        records.idempotency.hold(once.id, self._idempotency.holder, LEASE)
        records.messages.set_state(message.id, "received")
        self._claims[message.id] = claim
        return conversation, message, None
