"""The chat page, its assets and the visitor session; all files come from this server."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from litestar import Controller, MediaType, Request, Response, get
from litestar.openapi.plugins import OpenAPIRenderPlugin
from litestar.router import Router
from litestar.static_files import create_static_files_router

from appliance.api.auth import Caller, Desk, cookie, visitor_cookie
from appliance.api.problems import documented
from appliance.errors import ApplianceError, Unauthenticated
from appliance.services.visitors import SESSION_SECONDS

PAGES = Path(str(resources.files("appliance.api") / "pages"))


@dataclass(frozen=True, slots=True)
class Session:
    """Who the page speaks for and whom it speaks to; a key that is tied to no user has none."""

    user_id: str | None
    product: str
    model: str | None


class PageController(Controller):
    """What a browser opens."""

    include_in_schema = False

    @get("/", media_type=MediaType.HTML)
    async def chat(self, request: Request[Any, Any, Any], appliance: Desk) -> Response[bytes]:
        """The chat page. A visitor without a valid session gets a new one."""
        cookies = []
        try:
            appliance.visitors.principal(request.cookies.get(visitor_cookie(appliance), ""))
        except Unauthenticated:
            cookies = [
                cookie(
                    request,
                    visitor_cookie(appliance),
                    appliance.visitors.issue(),
                    seconds=SESSION_SECONDS,
                )
            ]
        return Response(
            (PAGES / "chat.html").read_bytes(),
            media_type=MediaType.HTML,
            cookies=cookies,
            headers={"Cache-Control": "no-cache"},
        )

    @get("/login", media_type=MediaType.HTML)
    async def login(self) -> Response[bytes]:
        """Where agents and administrators sign in and out."""
        return Response(
            (PAGES / "login.html").read_bytes(),
            media_type=MediaType.HTML,
            headers={"Cache-Control": "no-cache"},
        )

    @get("/favicon.ico")
    async def favicon(self) -> Response[bytes]:
        """Browsers ask for this name whatever the page says."""
        return Response((PAGES / "favicon.svg").read_bytes(), media_type="image/svg+xml")


class SessionController(Controller):
    """The session of the page."""

    tags = ("Session",)

    @get("/session", responses=documented(401))
    async def session(self, principal: Caller, appliance: Desk) -> Session:
        """Whom the page speaks for."""
        model = appliance.monitor.seen.model.model
        return Session(principal.user_id, appliance.settings.desk_name, model)


class LocalDocs(OpenAPIRenderPlugin):
    """Swagger UI from this server's own files; Litestar's own page would load it from elsewhere."""

    def __init__(self) -> None:
        super().__init__(
            path="/", media_type=MediaType.HTML, favicon="<link rel='icon' href='/favicon.ico'>"
        )

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        return (PAGES / "docs.html").read_bytes()


def swagger_folder() -> Path:
    """The Swagger UI files in the package ``drf-spectacular-sidecar``, which is located, not
    imported.

    :raises ApplianceError: the package is not installed.
    """
    spec = importlib.util.find_spec("drf_spectacular_sidecar")
    if spec is None or not spec.submodule_search_locations:
        raise ApplianceError(
            "The files of the API pages are missing.", hint="Install drf-spectacular-sidecar."
        )
    root = Path(spec.submodule_search_locations[0])
    return root / "static" / "drf_spectacular_sidecar" / "swagger-ui-dist"


def asset_routers() -> list[Router]:
    """Static files under ``/assets``."""
    return [
        create_static_files_router("/assets", [PAGES], name="assets", include_in_schema=False),
        create_static_files_router(
            "/assets/swagger-ui", [swagger_folder()], name="swagger", include_in_schema=False
        ),
    ]
