"""The Litestar application over a composed ``Appliance``."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from litestar import Litestar, Request, Router
from litestar.datastructures import MutableScopeHeaders
from litestar.di import Provide
from litestar.exceptions import HTTPException
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.openapi.spec import Components, SecurityScheme
from litestar.types import Message, Scope

from appliance import __version__
from appliance.api.answers import AnswerController
from appliance.api.auth import provide_principal
from appliance.api.chat import LocalDocs, PageController, SessionController, asset_routers
from appliance.api.conversations import ConversationController, FeedbackController
from appliance.api.corrections import CorrectionController
from appliance.api.event_schemas import PATH as EVENTS_PATH
from appliance.api.event_schemas import EventSchemaController
from appliance.api.knowledge import KnowledgeController
from appliance.api.problems import handle
from appliance.api.queries import QueryController
from appliance.api.system import SystemController
from appliance.api.users import UserController
from appliance.api.webhooks import WebhookController
from appliance.bootstrap import Appliance
from appliance.errors import ApplianceError, InvalidInput
from appliance.services.access import Principal

_STRICT = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
# Swagger UI writes style attributes and draws icons from data: addresses. It holds no session and
# runs no inline script, so only these two are opened, and only for its page.
_DOCS = _STRICT.replace("style-src 'self'", "style-src 'self' 'unsafe-inline'").replace(
    "img-src 'self'", "img-src 'self' data:"
)

RESOURCES = [
    QueryController,
    ConversationController,
    FeedbackController,
    CorrectionController,
    UserController,
    AnswerController,
    KnowledgeController,
    SessionController,
    SystemController,
    WebhookController,
]


def create_app(appliance: Appliance) -> Litestar:
    """The application. It starts answering ``/health`` at once; what takes time is prepared
    meanwhile."""

    async def provide_appliance() -> Appliance:
        return appliance

    @asynccontextmanager
    async def lifespan(_: Litestar) -> AsyncGenerator[None, None]:
        await appliance.start()
        try:
            yield
        finally:
            await appliance.aclose()

    return Litestar(
        route_handlers=[
            PageController,
            EventSchemaController,
            *asset_routers(),
            Router("/api/v1", route_handlers=RESOURCES),
        ],
        dependencies={
            "appliance": Provide(provide_appliance),
            "principal": Provide(provide_principal),
        },
        signature_types=[Appliance, Principal],
        exception_handlers={ApplianceError: handle, HTTPException: handle, Exception: handle},
        lifespan=[lifespan],
        request_max_body_size=appliance.settings.max_body_bytes,
        before_request=_readable,
        before_send=[_security_headers],
        logging_config=None,
        openapi_config=OpenAPIConfig(
            title="SmartSupport Appliance",
            version=__version__,
            description=f"What webhooks deliver is described in [{EVENTS_PATH}]({EVENTS_PATH}).",
            path="/docs",
            render_plugins=[LocalDocs(), JsonRenderPlugin(path="/openapi.json")],
            use_handler_docstrings=True,
            components=Components(
                security_schemes={"key": SecurityScheme(type="http", scheme="bearer")}
            ),
            security=[{"key": []}],
        ),
    )


async def _readable(request: Request[Any, Any, Any]) -> None:
    """Refuse JSON that the decoder gives up on with errors of its own: bad UTF-8, endless
    nesting."""
    if request.method in ("POST", "PUT", "PATCH"):
        try:
            msgspec.json.decode(await request.body())
        except (UnicodeDecodeError, RecursionError) as error:
            raise InvalidInput("The body cannot be read: bad UTF-8 or too deep.") from error
        except msgspec.DecodeError:
            return  # the route's own decoding says what is wrong and where


async def _security_headers(message: Message, scope: Scope) -> None:
    if message["type"] != "http.response.start":
        return
    headers = MutableScopeHeaders.from_message(message)
    headers["Content-Security-Policy"] = _DOCS if scope["path"].startswith("/docs") else _STRICT
    headers["X-Content-Type-Options"] = "nosniff"
    headers["Referrer-Policy"] = "same-origin"
    if scope["path"].startswith("/api/"):
        headers["Cache-Control"] = "no-store"
