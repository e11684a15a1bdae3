"""The Litestar application over a composed ``Appliance``."""

from __future__ import annotations

from collections import defaultdict
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
from appliance.api.accounts import AccountController
from appliance.api.answers import AnswerController
from appliance.api.audit import AuditController
from appliance.api.auth import guard, provide_principal, quota_of
from appliance.api.chat import LocalDocs, PageController, SessionController, asset_routers
from appliance.api.conversations import ConversationController, FeedbackController
from appliance.api.corrections import CorrectionController
from appliance.api.described import complete
from appliance.api.envelope import Envelope
from appliance.api.event_schemas import PATH as EVENTS_PATH
from appliance.api.event_schemas import EventSchemaController
from appliance.api.gate import Gate
from appliance.api.idempotency import OncePosts
from appliance.api.keys import KeyController
from appliance.api.knowledge import KnowledgeController
from appliance.api.metrics import MetricsController
from appliance.api.problems import documented, handle
from appliance.api.queries import QueryController
from appliance.api.roles import callers
from appliance.api.sessions import SignInController
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

HSTS_SECONDS = 365 * 24 * 3600
"""How long browsers that came by TLS shall come by nothing else."""

RESOURCES = [
    QueryController,
    ConversationController,
    FeedbackController,
    CorrectionController,
    UserController,
    AnswerController,
    KnowledgeController,
    SessionController,
    SignInController,
    KeyController,
    AccountController,
    AuditController,
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

    app = Litestar(
        route_handlers=[
            PageController,
            EventSchemaController,
            MetricsController,
            *asset_routers(),
            Router("/api/v1", route_handlers=RESOURCES),
        ],
        dependencies={
            "appliance": Provide(provide_appliance),
            "principal": Provide(provide_principal),
        },
        guards=[guard(appliance)],
        signature_types=[Appliance, Principal],
        exception_handlers={ApplianceError: handle, HTTPException: handle, Exception: handle},
        lifespan=[lifespan],
        middleware=[Gate(appliance), OncePosts(appliance)],
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
    _document_refusals(app)
    complete(app.openapi_schema)
    methods: defaultdict[str, set[str]] = defaultdict(set)
    for route in app.routes:
        methods[route.path_format] |= set(getattr(route, "methods", ()))
    app.asgi_handler = Envelope(app.asgi_handler, appliance.metrics, methods)
    return app


def _document_refusals(app: Litestar) -> None:
    """Tell in the API's description what the guard answers in front of every route that needs a
    key or session."""
    for route in app.routes:
        for handler in getattr(route, "route_handlers", ()):
            for method in handler.http_methods:
                if callers(method, route.path_format) is not None:
                    handler.responses = documented(401, 403, 429) | dict(handler.responses or {})


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
    headers["Cross-Origin-Opener-Policy"] = "same-origin"
    headers["Cross-Origin-Resource-Policy"] = "same-origin"
    headers["Permissions-Policy"] = "camera=(), geolocation=(), microphone=()"
    if scope["scheme"] == "https":
        headers["Strict-Transport-Security"] = f"max-age={HSTS_SECONDS}"
    quota = quota_of(scope)
    if quota is not None:  # draft-ietf-httpapi-ratelimit-headers
        name = f'"{quota.policy}"'
        headers["RateLimit-Policy"] = f"{name};q={quota.limit};w={quota.window}"
        headers["RateLimit"] = f"{name};r={quota.remaining};t={quota.reset}"
    if scope["path"].startswith("/api/"):
        headers["Cache-Control"] = "no-store"
