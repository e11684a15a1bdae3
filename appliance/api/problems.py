"""Errors to ``application/problem+json`` (RFC 9457), in this one place.

Every problem has a stable ``code`` and a ``detail`` for people. What was not expected says nothing
of itself: its text may hold a customer's words or a path.
"""

from __future__ import annotations

import http
from dataclasses import dataclass
from typing import Any

from litestar import Request, Response
from litestar.exceptions import HTTPException, ValidationException
from litestar.openapi.datastructures import ResponseSpec

from appliance.errors import ApplianceError, NotReady, ReadOnly
from appliance.logs import get_logger

log = get_logger()

PROBLEM_JSON = "application/problem+json"

_CORRECT = "Correct the request and send it again; /docs describes it."
KNOWN = {
    400: ("invalid_input", _CORRECT),
    401: ("unauthenticated", "Send 'Authorization: Bearer KEY'."),
    403: ("forbidden", "Use a key whose role allows it."),
    404: ("not_found", "Check the address; /docs lists all of them."),
    405: ("method_not_allowed", "See the Allow header."),
    413: ("too_large", "Send less; APPLIANCE_MAX_BODY_BYTES is the limit."),
    415: ("unsupported_media_type", "Send JSON as application/json."),
    429: ("rate_limited", "Wait for the time in Retry-After."),
}
"""Code and hint of the errors that the framework finds by itself."""


@dataclass(frozen=True, slots=True)
class Problem:
    """What every error answer holds."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    hint: str = ""


def problem(error: BaseException) -> tuple[Problem, dict[str, str]]:
    """An error as a problem and the headers that go with it."""
    if isinstance(error, ApplianceError):
        headers = {}
        if retry_after := getattr(error, "retry_after", None):
            headers["Retry-After"] = str(retry_after)
        if error.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return (
            Problem("about:blank", error.title, error.status, error.detail, error.code, error.hint),
            headers,
        )
    if isinstance(error, HTTPException):
        status = error.status_code
        title = http.HTTPStatus(status).phrase
        headers = {
            k: v for k, v in (error.headers or {}).items() if k.lower() in ("retry-after", "allow")
        }
        code, hint = KNOWN.get(status, ("http", ""))
        return Problem("about:blank", title, status, _detail(error), code, hint), headers
    return (
        Problem(
            "about:blank",
            ApplianceError.title,
            500,
            "The request could not be finished. What was accepted is stored.",
            ApplianceError.code,
            ApplianceError.default_hint,
        ),
        {},
    )


def handle(request: Request[Any, Any, Any], error: Exception) -> Response[Problem]:
    """The exception handler of the whole application."""
    body, headers = told(error)
    return Response(body, status_code=body.status, media_type=PROBLEM_JSON, headers=headers)


def told(error: BaseException) -> tuple[Problem, dict[str, str]]:
    """An error as a problem, and in the log where it is the appliance's own fault; in full where
    nobody foresaw it: a state that lasts would fill a disk with tracebacks."""
    body, headers = problem(error)
    if isinstance(error, NotReady | ReadOnly):
        log.warning("request_refused", code=body.code)
    elif body.status >= 500:
        log.error("request_failed", code=body.code, error=repr(error), exc_info=error)
    return body, headers


def documented(*statuses: int) -> dict[int, ResponseSpec]:
    """The problems a route can answer, for its OpenAPI entry."""
    return {
        status: ResponseSpec(
            Problem,
            description=http.HTTPStatus(status).phrase,
            media_type=PROBLEM_JSON,
            generate_examples=False,
        )
        for status in statuses
    }


def _detail(error: HTTPException) -> str:
    if not isinstance(error, ValidationException) or not error.extra:
        return error.detail
    first = error.extra[0] if isinstance(error.extra, list) else error.extra
    if not isinstance(first, dict):
        return error.detail
    where = first.get("key", "")
    return (
        f"{where}: {first.get('message', '')}" if where else str(first.get("message", error.detail))
    )
