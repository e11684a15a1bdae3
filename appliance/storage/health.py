"""What the doctor asks of the database: numbers and times, never a word of a customer."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select

from appliance.domain.chain import Head, Sealed
from appliance.storage.answer_records import AnswerRecordRepository
from appliance.storage.deliveries import DeliveryRepository
from appliance.storage.records import DeliveryState, Worker
from appliance.storage.repository import Repository
from appliance.storage.tables import (
    accounts,
    api_keys,
    audit_log,
    conversations,
    heartbeats,
    kb_quarantine,
    knowledge_entries,
    learning_examples,
    messages,
    metadata,
    webhook_attempts,
    webhook_deliveries,
    webhooks,
)
from appliance.storage.workers import WorkerRepository

RECORDS_LOOKED_AT = 50
"""Answer records at the chain's end that a quick look reads."""


@dataclass(frozen=True, slots=True)
class StoredHealth:
    """One snapshot. ``newest`` is the latest time that anything carries;
    ``records`` are the chain's last, newest first; ``first_conversation`` tells how old the desk
    is."""

    articles: int
    conversations: int
    messages: int
    first_conversation: datetime | None
    newest: datetime | None
    deliveries: dict[DeliveryState, int]
    oldest_due: datetime | None
    webhooks: int
    webhooks_off: int
    worker: Worker | None
    quarantined: int
    examples: int
    failed_sign_ins: int
    locked: int
    locked_lately: int
    admin_keys: int
    head: Head
    records: tuple[Sealed, ...]


@dataclass(frozen=True, slots=True)
class Outbound:
    """What was written down of leaving this machine: attempts of webhook deliveries, the
    receivers there are, and calls of a remote model; when the latest was, None for never."""

    webhook_attempts: int
    webhook_latest: datetime | None
    receivers: tuple[str, ...]
    remote_calls: int
    remote_latest: datetime | None


class HealthRepository(Repository):
    """Counts across the tables, in one transaction."""

    def look(self, now: datetime, since: datetime) -> StoredHealth:
        """Everything at once.

        :param since: from when on locks of accounts count as lately.
        """
        deliveries = webhook_deliveries.c
        waiting = deliveries.state.in_(("pending", "sending"))
        due = func.coalesce(deliveries.next_attempt_at, deliveries.created_at)
        locks = (audit_log.c.action == "account.lock", audit_log.c.created_at >= since)
        chain = AnswerRecordRepository(self._connection)
        return StoredHealth(
            articles=self._count(knowledge_entries),
            conversations=self._count(conversations),
            messages=self._count(messages),
            first_conversation=self._connection.scalar(
                select(func.min(conversations.c.created_at))
            ),
            newest=self._newest(),
            deliveries=DeliveryRepository(self._connection).counts(),
            oldest_due=self._connection.scalar(
                select(func.min(due)).where(
                    waiting, (deliveries.next_attempt_at.is_(None)) | (due <= now)
                )
            ),
            webhooks=self._count(webhooks),
            webhooks_off=self._count(
                webhooks, ~webhooks.c.active, webhooks.c.disabled_reason != "operator"
            ),
            worker=WorkerRepository(self._connection).latest(),
            quarantined=self._count(kb_quarantine, kb_quarantine.c.state == "held"),
            examples=self._count(learning_examples),
            failed_sign_ins=self._connection.scalar(select(func.sum(accounts.c.failures))) or 0,
            locked=self._count(accounts, accounts.c.locked_until > now),
            locked_lately=self._count(audit_log, *locks),
            admin_keys=self._count(
                api_keys,
                api_keys.c.role == "admin",
                api_keys.c.revoked_at.is_(None),
                (api_keys.c.expires_at.is_(None)) | (api_keys.c.expires_at > now),
            ),
            head=chain.head(),
            records=tuple(chain.latest(RECORDS_LOOKED_AT)),
        )

    def rows(self) -> dict[str, int]:
        """The number of rows of every table."""
        return {table.name: self._count(table) for table in metadata.sorted_tables}

    def outbound(self, call: str) -> Outbound:
        """Everything that is still kept.

        :param call: the audit log's action of a remote call.
        """
        calls = audit_log.c.action == call
        return Outbound(
            webhook_attempts=self._count(webhook_attempts),
            webhook_latest=self._connection.scalar(select(func.max(webhook_attempts.c.started_at))),
            receivers=tuple(self._connection.scalars(select(webhooks.c.url).distinct())),
            remote_calls=self._count(audit_log, calls),
            remote_latest=self._connection.scalar(
                select(func.max(audit_log.c.created_at)).where(calls)
            ),
        )

    def _newest(self) -> datetime | None:
        times = [
            self._connection.scalar(select(func.max(column)))
            for column in (messages.c.created_at, audit_log.c.created_at, heartbeats.c.at)
        ]
        return max((time for time in times if time is not None), default=None)

    def _count(self, table: object, *where: object) -> int:
        statement = select(func.count()).select_from(table)  # type: ignore[arg-type]
        found = self._connection.scalar(statement.where(*where))  # type: ignore[arg-type]
        return int(found or 0)
