"""Who sends a request, and whether they may: a Bearer key, a session's cookie, or the operator's
own socket, held against the table of ``roles``."""

from __future__ import annotations

import hashlib
import hmac
from typing import Any, Final

from litestar import Request
from litestar.connection import ASGIConnection
from litestar.datastructures import Cookie
from litestar.di import NamedDependency
from litestar.handlers import BaseRouteHandler
from litestar.types import ASGIApp, Guard, Receive, Scope, Send

from appliance.api.roles import caller, callers
from appliance.bootstrap import Appliance
from appliance.errors import Forbidden, Unauthenticated
from appliance.services.access import OPERATOR, Principal
from appliance.services.limits import Quota
from appliance.services.sessions import csrf_token

Connection = ASGIConnection[Any, Any, Any, Any]
Desk = NamedDependency[Appliance]
Caller = NamedDependency[Principal]
"""What route handlers ask for by the names ``appliance`` and ``principal``."""

PAGE_HEADER: Final = "X-Requested-With"
"""A header that forms and images of other sites cannot set: with SameSite it keeps forged requests
out. Its value names the page, see ``CHAT_PAGE``."""
CHAT_PAGE: Final = "appliance-chat"
"""The chat page speaks for its visitor, also in a browser in which somebody is signed in."""
CSRF_HEADER: Final = "X-CSRF-Token"

_OPERATOR_MARK = "appliance.operator"
_PRINCIPAL = "appliance.principal"
_IDENTIFIED = "appliance.identified"
_QUOTA = "appliance.quota"


class OperatorSocket:
    """Wraps the application for the operator's socket. The mark is put on by this server, never by
    a client."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        marked: Any = {**scope, _OPERATOR_MARK: True}
        await self._app(marked, receive, send)


def guard(appliance: Appliance) -> Guard:
    """What stands in front of every route: the table, and the caller's limit."""

    async def admit(connection: Connection, _: BaseRouteHandler) -> None:
        scope = connection.scope
        method = str(scope.get("method", ""))
        allowed = callers(method, scope["path_template"])
        if method == "OPTIONS" or allowed is None:  # OPTIONS tells which methods there are
            return
        principal = await identify(connection, appliance)
        count(connection, appliance, principal)
        if caller(principal) not in allowed:
            needed = f"the role {' or '.join(sorted(allowed))}" if allowed else "a role nobody has"
            raise Forbidden(f"This needs {needed}; yours is {caller(principal)}.")
        _marks(connection)[_PRINCIPAL] = principal

    return admit


async def provide_principal(request: Request[Any, Any, Any]) -> Principal:
    """The principal that the guard let in, as a dependency of every route that needs one.

    :raises Unauthenticated: the route is open to anybody, and nobody was looked at.
    """
    principal: Principal | None = _marks(request).get(_PRINCIPAL)
    if principal is None:
        raise Unauthenticated("There is no key and no session.")
    return principal


def quota_of(scope: Scope) -> Quota | None:
    """What is left to whoever sent a request, for the headers of its answer."""
    marks: Any = scope
    quota: Quota | None = marks.get(_QUOTA)
    return quota


async def identify(connection: Connection, appliance: Appliance) -> Principal:
    """Who sends a request, found out once; whether they may is the guard's business.

    :raises Unauthenticated: there is neither a valid key nor a valid session.
    :raises Forbidden: a session's cookie came with a request that one of our pages did not make.
    """
    known: Principal | None = _marks(connection).get(_IDENTIFIED)
    if known is None:
        known = _marks(connection)[_IDENTIFIED] = await _principal(connection, appliance)
    return known


async def _principal(connection: Connection, appliance: Appliance) -> Principal:
    if _OPERATOR_MARK in connection.scope:
        return OPERATOR
    scheme, _, key = connection.headers.get("Authorization", "").partition(" ")
    if scheme:
        if scheme.lower() != "bearer" or not key.strip():
            raise Unauthenticated("The Authorization header must be 'Bearer KEY'.")
        return await appliance.access.authenticate(key.strip())
    writes = connection.scope.get("method") not in ("GET", "HEAD")
    token = session_token(connection, appliance)
    if token is not None and connection.headers.get(PAGE_HEADER) != CHAT_PAGE:
        principal, _who = await appliance.sessions.resume(token)
        sent = connection.headers.get(CSRF_HEADER, "")
        if writes and not hmac.compare_digest(sent.encode(), csrf_token(token).encode()):
            raise Forbidden(
                f"Requests of a signed-in page need the header {CSRF_HEADER}.",
                hint="GET /api/v1/account tells the token.",
            )
    else:
        cookie = connection.cookies.get(visitor_cookie(appliance))
        if cookie is None:
            raise Unauthenticated("There is no key and no session.")
        principal = appliance.visitors.principal(cookie)
        if writes and PAGE_HEADER not in connection.headers:
            raise Forbidden(f"Requests with a session need the header {PAGE_HEADER}.")
    if writes:
        require_same_site(connection)
    return principal


def require_same_site(connection: Connection) -> None:
    """:raises Forbidden: the browser says that another site made the request."""
    if connection.headers.get("Sec-Fetch-Site", "same-origin") not in ("same-origin", "none"):
        raise Forbidden("The request was made by another site.")


def address_of(connection: Connection) -> str:
    """Where a request came from, as the connection says; no header decides it."""
    return connection.client.host if connection.client else ""


def count(connection: Connection, appliance: Appliance, principal: Principal) -> None:
    """Count a request against its sender's limit, once, whoever asks first.

    :raises RateLimited: the principal has used up their minute.
    """
    if _QUOTA in connection.scope:
        return
    who = principal.owner
    limit: Any
    if principal.via == "operator":
        return
    if principal.via == "visitor":
        limit = appliance.visitor_limit
        reads = connection.scope.get("method") in ("GET", "HEAD")
        if reads and not connection.url.path.endswith("/search"):
            return
        taking = (who, address_of(connection))
    else:
        limit = appliance.key_limit
        taking = (who, "This key has used up its requests for now.")
    try:
        limit.take(*taking)
    finally:
        _marks(connection)[_QUOTA] = limit.quota(who)


def is_operator(scope: Scope) -> bool:
    """Whether the request came over the operator's socket."""
    return _OPERATOR_MARK in scope


def visitor_cookie(appliance: Appliance) -> str:
    """The cookie's name. Cookies know no ports: two appliances on one host must not share it."""
    return f"appliance_visitor_{_mark_of(appliance)}"


def session_cookie(appliance: Appliance) -> str:
    """The same for whoever is signed in; under TLS with the prefix that no other host and no plain
    HTTP can set."""
    prefix = "__Host-" if appliance.settings.tls_cert_file else ""
    return f"{prefix}appliance_session_{_mark_of(appliance)}"


def session_token(connection: Connection, appliance: Appliance) -> str | None:
    """The token of the session that a browser holds, valid or not."""
    return connection.cookies.get(session_cookie(appliance)) or None


def cookie(connection: Connection, name: str, value: str, *, seconds: int | None = None) -> Cookie:
    """A cookie that scripts cannot read and other sites cannot send. Without ``seconds`` it ends
    with the browser; with 0 at once."""
    return Cookie(
        key=name,
        value=value,
        httponly=True,
        samesite="strict",
        secure=connection.url.scheme == "https",
        max_age=seconds,
        path="/",
    )


def _mark_of(appliance: Appliance) -> str:
    return hashlib.sha256(str(appliance.settings.data_dir).encode()).hexdigest()[:8]


def _marks(connection: Connection) -> dict[str, Any]:
    """The scope, in which we keep what is known of a request."""
    marks: Any = connection.scope
    found: dict[str, Any] = marks
    return found
