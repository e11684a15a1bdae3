"""Receivers of events, for administrators; what becomes of each event is in ``deliveries``."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from appliance.domain.events import EVENTS
from appliance.domain.policy import WEBHOOKS_MAX
from appliance.domain.receivers import ReceiverGuard, parse_url, private_trust
from appliance.domain.text import clean
from appliance.domain.webhook_secrets import WebhookSecrets
from appliance.errors import Conflict, InvalidInput, NotFound
from appliance.services.access import Principal
from appliance.storage.database import Database, Records
from appliance.storage.records import Webhook

DESCRIPTION_MAX_CHARS: Final = 500
CA_MAX_CHARS: Final = 65_536
OVERLAP_HOURS: Final = 24
"""How long the secret before stays live beside a new one, unless somebody says otherwise."""
OVERLAP_HOURS_MAX: Final = 168


@dataclass(frozen=True, slots=True)
class WebhookAndSecret(Webhook):
    """A webhook with the secret that its receiver verifies by. It is shown this once."""

    secret: str


class Webhooks:
    """Keeps webhooks. Every act is written to the audit log in its own transaction; URLs may hold
    a receiver's token, so only their host goes there.

    :raises Forbidden: from every method, where the principal is no administrator.
    """

    def __init__(self, database: Database, guard: ReceiverGuard, secrets: WebhookSecrets) -> None:
        self._database = database
        self._guard = guard
        self._secrets = secrets

    async def create(
        self,
        principal: Principal,
        url: str,
        events: Collection[str],
        *,
        description: str | None = None,
        ca_pem: str | None = None,
    ) -> WebhookAndSecret:
        """Add a webhook, live at once.

        :raises ReceiverRefused: it may not be sent to, or its certificates cannot be read.
        :raises InvalidInput: no event, or an unknown one.
        :raises Conflict: there are as many webhooks as there may be.
        """
        principal.require("admin")
        events, description, ca_pem = _checked(events, description, ca_pem)
        await self._guard.admit(url)
        stored = self._secrets.new()

        def work(records: Records) -> Webhook:
            if records.webhooks.count() >= WEBHOOKS_MAX:
                raise Conflict(
                    f"There are {WEBHOOKS_MAX} webhooks already.", hint="Delete one first."
                )
            made = records.webhooks.add(url, events, stored, description=description, ca_pem=ca_pem)
            records.audit.add(principal.owner, "webhook.create", made.id, _told(made))
            return made

        made = await self._database.answer(work, told_once=True)
        return _with_secret(made, self._secrets.shown(stored))

    async def list(self, principal: Principal) -> Sequence[Webhook]:
        """All of them, oldest first."""
        principal.require("admin")
        return await self._database.read(lambda records: records.webhooks.list())

    async def get(self, principal: Principal, webhook_id: str) -> Webhook:
        """:raises NotFound: there is no such webhook."""
        principal.require("admin")
        return await self._database.read(lambda records: found_webhook(records, webhook_id))

    async def update(
        self,
        principal: Principal,
        webhook_id: str,
        *,
        url: str,
        events: Collection[str],
        description: str | None,
        ca_pem: str | None,
        active: bool,
    ) -> Webhook:
        """Replace everything but the secret. Switching it on again forgets its failures; while it
        is off its events are not kept for it.

        :raises NotFound: there is no such webhook.
        :raises ReceiverRefused: as for ``create``; one that is only switched off is not asked.
        :raises InvalidInput: as for ``create``.
        """
        principal.require("admin")
        events, description, ca_pem = _checked(events, description, ca_pem)
        before = await self.get(principal, webhook_id)
        if active or url != before.url:
            await self._guard.admit(url)

        def work(records: Records) -> Webhook:
            changed = records.webhooks.update(
                webhook_id,
                url=url,
                events=events,
                description=description,
                ca_pem=ca_pem,
                active=active,
            )
            if changed is None:
                raise _missing()
            details = {**_told(changed), "active": active}
            records.audit.add(principal.owner, "webhook.update", webhook_id, details)
            return changed

        return await self._database.write(work)

    async def delete(self, principal: Principal, webhook_id: str) -> None:
        """Remove it with its deliveries, those under way included.

        :raises NotFound: there is no such webhook.
        """
        principal.require("admin")

        def work(records: Records) -> None:
            gone = found_webhook(records, webhook_id)
            if not records.webhooks.delete(webhook_id):
                raise _missing()
            records.audit.add(principal.owner, "webhook.delete", webhook_id, _told(gone))

        await self._database.write(work)

    async def rotate(
        self, principal: Principal, webhook_id: str, *, overlap_hours: int = OVERLAP_HOURS
    ) -> WebhookAndSecret:
        """Give it a new secret. Deliveries are signed with both until the overlap ends; 0 for a
        secret that leaked.

        :raises NotFound: there is no such webhook.
        :raises InvalidInput: the overlap is out of range.
        :raises Conflict: the overlap of the rotation before has not ended.
        """
        principal.require("admin")
        if not 0 <= overlap_hours <= OVERLAP_HOURS_MAX:
            raise InvalidInput(f"The overlap is 0 to {OVERLAP_HOURS_MAX} hours.")
        stored = self._secrets.new()
        until = datetime.now(UTC) + timedelta(hours=overlap_hours)

        def work(records: Records) -> Webhook:
            present = found_webhook(records, webhook_id, lock=True)
            expires = present.previous_secret_expires_at
            if overlap_hours and expires is not None and expires > datetime.now(UTC):
                # A second rotation would end the one secret that the receiver surely has.
                raise Conflict(
                    "The secret before the present one is still live.",
                    hint="Wait for its end, or rotate without an overlap if the secret leaked.",
                )
            rotated = records.webhooks.rotate(webhook_id, stored, until)
            if rotated is None:
                raise _missing()
            details = {"overlap_hours": overlap_hours}
            records.audit.add(principal.owner, "webhook.rotate_secret", webhook_id, details)
            return rotated

        rotated = await self._database.answer(work, told_once=True)
        return _with_secret(rotated, self._secrets.shown(stored))


def found_webhook(records: Records, webhook_id: str, *, lock: bool = False) -> Webhook:
    """The webhook of that id.

    :param lock: keep it as it is to the end of the transaction.
    :raises NotFound: there is none.
    """
    webhook = records.webhooks.get(webhook_id, lock=lock)
    if webhook is None:
        raise _missing()
    return webhook


def _checked(
    events: Collection[str], description: str | None, ca_pem: str | None
) -> tuple[list[str], str | None, str | None]:
    """The events once each in their published order, and the rest as it is stored."""
    if unknown := sorted(set(events) - set(EVENTS)):
        raise InvalidInput(
            f"There is no event {unknown[0]!r}.", hint=f"Events are {', '.join(EVENTS)}."
        )
    if not events:
        raise InvalidInput("A webhook needs an event.", hint=f"Events are {', '.join(EVENTS)}.")
    description = clean(description or "") or None
    if description is not None and len(description) > DESCRIPTION_MAX_CHARS:
        raise InvalidInput(f"A description has at most {DESCRIPTION_MAX_CHARS} characters.")
    if ca_pem is not None:
        if len(ca_pem) > CA_MAX_CHARS:
            raise InvalidInput(f"Certificates have at most {CA_MAX_CHARS} characters.")
        private_trust(ca_pem)
    return [event for event in EVENTS if event in events], description, ca_pem


def _told(webhook: Webhook) -> dict[str, Any]:
    return {
        "host": parse_url(webhook.url).authority,
        "events": [*webhook.events],
        "private_ca": webhook.ca_pem is not None,
    }


def _with_secret(webhook: Webhook, secret: str) -> WebhookAndSecret:
    return WebhookAndSecret(**asdict(webhook), secret=secret)


def _missing() -> NotFound:
    return NotFound("There is no such webhook.")
