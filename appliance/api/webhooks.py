"""Receivers of events and their deliveries: for admins."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from litestar import Controller, delete, get, post, put
from litestar.params import FromPath, FromQuery, JSONBody, Parameter
from msgspec import Meta, Struct, field

from appliance.api.auth import Caller, Desk
from appliance.api.conversations import Id
from appliance.api.idempotency import TOLD_ONCE
from appliance.api.problems import documented
from appliance.domain.events import EVENTS, EventType
from appliance.domain.receivers import URL_MAX_CHARS
from appliance.services.deliveries import PAGE_MAX, ShownDelivery
from appliance.services.webhooks import (
    CA_MAX_CHARS,
    DESCRIPTION_MAX_CHARS,
    OVERLAP_HOURS,
    OVERLAP_HOURS_MAX,
    WebhookAndSecret,
)
from appliance.storage.records import DeliveryState, Webhook

Url = Annotated[str, Meta(min_length=1, max_length=URL_MAX_CHARS)]
Events = Annotated[list[EventType], Meta(min_length=1, max_length=len(EVENTS))]
Description = Annotated[str, Meta(max_length=DESCRIPTION_MAX_CHARS)]
Certificates = Annotated[str, Meta(min_length=1, max_length=CA_MAX_CHARS)]
Moment = Annotated[datetime, Meta(tz=True)]


class WebhookRequest(Struct, forbid_unknown_fields=True):
    """A receiver. ``ca_pem`` are the certificates to trust for it, instead of the machine's."""

    url: Url
    events: Events
    description: Description | None = None
    ca_pem: Certificates | None = None


class WebhookReplacement(WebhookRequest, forbid_unknown_fields=True):
    """What a webhook becomes; what is left out is emptied. ``active`` switches it on or off."""

    active: bool = True


class RotationRequest(Struct, forbid_unknown_fields=True):
    """``overlap_hours`` the present secret stays live; 0 for one that leaked."""

    overlap_hours: Annotated[int, Meta(ge=0, le=OVERLAP_HOURS_MAX)] = OVERLAP_HOURS


class RedeliveryRequest(Struct, forbid_unknown_fields=True):
    """What was made from ``since`` on and before ``until``, by default now."""

    since: Moment
    until: Moment | None = None
    states: Annotated[list[Literal["dead", "delivered"]], Meta(min_length=1, max_length=2)] = field(
        default_factory=lambda: ["dead"]
    )


class WebhookPage(Struct):
    """All webhooks, oldest first."""

    items: list[Webhook]


class DeliveryPage(Struct):
    """Deliveries, newest first; ``after`` the last one comes the next page."""

    items: list[ShownDelivery]


class Requeued(Struct):
    """How many deliveries are on their way again."""

    requeued: int


class WebhookController(Controller):
    """Webhooks by Standard Webhooks 1.0.0. Receivers have to be listed in APPLIANCE_WEBHOOK_ALLOW;
    what they get is described under /docs/events."""

    path = "/webhooks"
    tags = ("Webhooks",)

    @post("/", opt={TOLD_ONCE: True}, responses=documented(400, 401, 403, 409, 413))
    async def create_webhook(
        self, data: JSONBody[WebhookRequest], principal: Caller, appliance: Desk
    ) -> WebhookAndSecret:
        """Add a webhook. The secret to verify its deliveries by is shown this once."""
        return await appliance.webhooks.create(
            principal, data.url, data.events, description=data.description, ca_pem=data.ca_pem
        )

    @get("/", responses=documented(401, 403))
    async def list_webhooks(self, principal: Caller, appliance: Desk) -> WebhookPage:
        """All webhooks, oldest first."""
        return WebhookPage([*await appliance.webhooks.list(principal)])

    @get("/{webhook_id:str}", responses=documented(400, 401, 403, 404))
    async def get_webhook(
        self, webhook_id: FromPath[str], principal: Caller, appliance: Desk
    ) -> Webhook:
        """One webhook. Its secret is not shown again."""
        return await appliance.webhooks.get(principal, webhook_id)

    @put("/{webhook_id:str}", responses=documented(400, 401, 403, 404, 413))
    async def put_webhook(
        self,
        webhook_id: FromPath[str],
        data: JSONBody[WebhookReplacement],
        principal: Caller,
        appliance: Desk,
    ) -> Webhook:
        """Replace a webhook; its secret stays. One that was disabled is switched on by this."""
        return await appliance.webhooks.update(
            principal,
            webhook_id,
            url=data.url,
            events=data.events,
            description=data.description,
            ca_pem=data.ca_pem,
            active=data.active,
        )

    @delete("/{webhook_id:str}", responses=documented(400, 401, 403, 404))
    async def delete_webhook(
        self, webhook_id: FromPath[str], principal: Caller, appliance: Desk
    ) -> None:
        """Remove a webhook with its deliveries."""
        await appliance.webhooks.delete(principal, webhook_id)

    @post(
        "/{webhook_id:str}/test",
        status_code=202,
        responses=documented(400, 401, 403, 404),
    )
    async def test_webhook(
        self, webhook_id: FromPath[str], principal: Caller, appliance: Desk
    ) -> ShownDelivery:
        """Send a webhook.test, whatever it subscribes to, the way every event goes; the delivery
        tells how it went."""
        return await appliance.deliveries.test(principal, webhook_id)

    @post(
        "/{webhook_id:str}/rotate-secret",
        status_code=200,
        opt={TOLD_ONCE: True},
        responses=documented(400, 401, 403, 404, 409, 413),
    )
    async def rotate_secret(
        self,
        webhook_id: FromPath[str],
        principal: Caller,
        appliance: Desk,
        data: JSONBody[RotationRequest | None] = None,
    ) -> WebhookAndSecret:
        """Make a new secret, shown this once. Until the overlap ends deliveries carry two
        signatures, one of each secret."""
        hours = (data or RotationRequest()).overlap_hours
        return await appliance.webhooks.rotate(principal, webhook_id, overlap_hours=hours)

    @get("/{webhook_id:str}/deliveries", responses=documented(400, 401, 403, 404))
    async def list_deliveries(
        self,
        webhook_id: FromPath[str],
        principal: Caller,
        appliance: Desk,
        limit: Annotated[int, Parameter(ge=1, le=PAGE_MAX)] = 20,
        status: FromQuery[DeliveryState | None] = None,
        after: Id = None,
    ) -> DeliveryPage:
        """A webhook's deliveries with their attempts, newest first."""
        return DeliveryPage(
            await appliance.deliveries.list(
                principal, webhook_id, limit=limit, state=status, after=after
            )
        )

    @post(
        "/{webhook_id:str}/redeliver",
        status_code=202,
        responses=documented(400, 401, 403, 404, 409, 413),
    )
    async def redeliver_range(
        self,
        webhook_id: FromPath[str],
        data: JSONBody[RedeliveryRequest],
        principal: Caller,
        appliance: Desk,
    ) -> Requeued:
        """Send again what a range of time holds: dead letters, delivered ones, or both."""
        return Requeued(
            await appliance.deliveries.redeliver_between(
                principal, webhook_id, since=data.since, until=data.until, states=data.states
            )
        )

    @get("/deliveries/{delivery_id:str}", responses=documented(400, 401, 403, 404))
    async def get_delivery(
        self, delivery_id: FromPath[str], principal: Caller, appliance: Desk
    ) -> ShownDelivery:
        """One delivery with its attempts."""
        return await appliance.deliveries.get(principal, delivery_id)

    @post(
        "/deliveries/{delivery_id:str}/redeliver",
        status_code=202,
        responses=documented(400, 401, 403, 404, 409),
    )
    async def redeliver(
        self, delivery_id: FromPath[str], principal: Caller, appliance: Desk
    ) -> ShownDelivery:
        """Send one delivery again, with the same event id."""
        return await appliance.deliveries.redeliver(principal, delivery_id)
