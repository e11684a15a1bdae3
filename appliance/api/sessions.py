"""Signing in and out, and one's own account."""

from __future__ import annotations

from typing import Any

from litestar import Controller, Request, Response, get, post
from litestar.params import JSONBody

from appliance.api.auth import (
    PAGE_HEADER,
    Caller,
    Desk,
    address_of,
    cookie,
    require_same_site,
    session_cookie,
    session_token,
)
from appliance.api.gate import SMALL
from appliance.api.idempotency import TOLD_ONCE
from appliance.api.problems import documented
from appliance.api.schemas import LoginRequest, PasswordRequest
from appliance.errors import Conflict, Forbidden, InvalidInput
from appliance.services.sessions import NewSession, SignedIn

NO_SESSION = "The request carries no session; keys are not signed in."


class SignInController(Controller):
    """Sessions of agents and administrators, for the pages."""

    tags = ("Sign-in",)

    @post(
        "/login",
        status_code=200,
        opt={TOLD_ONCE: True, SMALL: True},
        responses=documented(400, 401, 403, 413, 429, 503),
        security=[{}],
    )
    async def login(
        self, request: Request[Any, Any, Any], data: JSONBody[LoginRequest], appliance: Desk
    ) -> Response[SignedIn]:
        """Sign in by username and password, or by a key. The session's cookie comes with the
        answer; its ``csrf_token`` goes into the header X-CSRF-Token of every request that changes
        something."""
        if PAGE_HEADER not in request.headers:
            # Else another site could sign a browser in as somebody of its own choice.
            raise Forbidden(f"Signing in needs the header {PAGE_HEADER}.")
        require_same_site(request)
        before, address = session_token(request, appliance), address_of(request)
        sessions = appliance.sessions
        if data.key is not None and data.username is None and data.password is None:
            opened = await sessions.sign_in_by_key(data.key, address=address, replaces=before)
        elif data.username is not None and data.password is not None and data.key is None:
            opened = await sessions.sign_in(
                data.username, data.password, address=address, replaces=before
            )
        else:
            raise InvalidInput("Sign in with username and password, or with key.")
        return _with_cookie(request, appliance, opened)

    @post("/logout", status_code=204, opt={SMALL: True}, responses=documented(401, 403, 409))
    async def logout(
        self, request: Request[Any, Any, Any], principal: Caller, appliance: Desk
    ) -> Response[None]:
        """End the session of this browser."""
        token = session_token(request, appliance)
        if principal.via != "session" or token is None:
            raise Conflict(NO_SESSION)
        await appliance.sessions.sign_out(token)
        gone = cookie(request, session_cookie(appliance), "", seconds=0)
        return Response(None, status_code=204, cookies=[gone])

    @get("/account", responses=documented(401, 403, 409))
    async def account(
        self, request: Request[Any, Any, Any], principal: Caller, appliance: Desk
    ) -> SignedIn:
        """Who is signed in, with the token for requests that change something."""
        token = session_token(request, appliance)
        if principal.via != "session" or token is None:
            raise Conflict(NO_SESSION)
        return (await appliance.sessions.resume(token))[1]

    @post(
        "/account/password",
        status_code=200,
        opt={SMALL: True},
        responses=documented(400, 401, 403, 409, 413, 429),
    )
    async def change_password(
        self,
        request: Request[Any, Any, Any],
        data: JSONBody[PasswordRequest],
        principal: Caller,
        appliance: Desk,
    ) -> Response[SignedIn]:
        """Change one's own password. Every other session of the account ends."""
        token = session_token(request, appliance)
        if principal.via != "session" or token is None:
            raise Conflict(NO_SESSION)
        opened = await appliance.sessions.change_password(principal, token, data.present, data.new)
        return _with_cookie(request, appliance, opened)


def _with_cookie(
    request: Request[Any, Any, Any], appliance: Any, opened: NewSession
) -> Response[SignedIn]:
    return Response(opened.who, cookies=[cookie(request, session_cookie(appliance), opened.token)])
