"""Who sends a request: a Bearer key, a visitor's cookie, or the operator's own socket."""

from __future__ import annotations

import hashlib
from typing import Any

from litestar import Request
from litestar.di import NamedDependency
from litestar.types import ASGIApp, Receive, Scope, Send

from appliance.bootstrap import Appliance
from appliance.errors import Forbidden, Unauthenticated
from appliance.services.access import OPERATOR, Principal

Desk = NamedDependency[Appliance]
Caller = NamedDependency[Principal]
"""What route handlers ask for by the names ``appliance`` and ``principal``."""

PAGE_HEADER = "X-Requested-With"
"""A header that forms and images of other sites cannot set: with SameSite it keeps forged requests
out."""

_OPERATOR_MARK = "appliance.operator"
KNOWN_PRINCIPAL = "appliance.principal"
"""Where a request's state holds the principal that a middleware has found out already."""


class OperatorSocket:
    """Wraps the application for the operator's socket. The mark is put on by this server, never by
    a client."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        marked: Any = {**scope, _OPERATOR_MARK: True}
        await self._app(marked, receive, send)


async def provide_principal(request: Request[Any, Any, Any], appliance: Desk) -> Principal:
    """The principal of a request, as a dependency of every route that needs one.

    :raises Unauthenticated: there is neither a valid key nor a valid session.
    :raises Forbidden: a session's cookie came with a request that the chat page did not make.
    """
    known: Principal | None = request.scope["state"].get(KNOWN_PRINCIPAL)
    if known is not None:
        return known
    if _OPERATOR_MARK in request.scope:
        return OPERATOR
    scheme, _, key = request.headers.get("Authorization", "").partition(" ")
    if scheme:
        if scheme.lower() != "bearer" or not key.strip():
            raise Unauthenticated("The Authorization header must be 'Bearer KEY'.")
        return await appliance.access.authenticate(key.strip())
    cookie = request.cookies.get(visitor_cookie(appliance))
    if cookie is None:
        raise Unauthenticated("There is no key and no session.")
    principal = appliance.visitors.principal(cookie)
    writes = request.method not in ("GET", "HEAD")
    if writes and PAGE_HEADER not in request.headers:
        raise Forbidden(f"Requests with a session need the header {PAGE_HEADER}.")
    if writes or request.url.path.endswith("/search"):
        appliance.visitor_limit.take(principal.owner, request.client.host if request.client else "")
    return principal


def is_operator(scope: Scope) -> bool:
    """Whether the request came over the operator's socket."""
    return _OPERATOR_MARK in scope


def visitor_cookie(appliance: Appliance) -> str:
    """The cookie's name. Cookies know no ports: two appliances on one host must not share it."""
    digest = hashlib.sha256(str(appliance.settings.data_dir).encode()).hexdigest()[:8]
    return f"appliance_visitor_{digest}"
