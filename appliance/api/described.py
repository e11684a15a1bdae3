"""Completes the OpenAPI document with what every route has in common: said once, not at each."""

from __future__ import annotations

import http
from typing import Final

from litestar.openapi.spec import (
    OpenAPI,
    OpenAPIHeader,
    OpenAPIMediaType,
    OpenAPIResponse,
    OpenAPIType,
    Operation,
    Parameter,
    Reference,
    Schema,
)

from appliance.api.idempotency import HEADER, KEY_MAX_CHARS
from appliance.api.problems import PROBLEM_JSON

COMMON: Final = (400, 405, 429, 503)
WITH_BODY: Final = (408, 413, 415, 507)
ON_POST: Final = (409, 422)
PROBES: Final = ("/api/v1/health", "/api/v1/ready")
"""They pass no gate and ask for no key."""
_RETRY: Final = (409, 429, 503, 507)


def complete(document: OpenAPI) -> None:
    """Add the problems, headers and parameters that the middleware brings."""
    for path, item in (document.paths or {}).items():
        for method in ("get", "post", "put", "patch", "delete"):
            operation: Operation | None = getattr(item, method)
            if operation is None:
                continue
            if path in PROBES:
                operation.security = []
                continue
            _refuse_unknown_fields(operation, document)
            statuses = list(COMMON)
            if method in ("post", "put", "patch"):
                statuses += WITH_BODY
            if method == "post":
                statuses += ON_POST
                operation.parameters = [*(operation.parameters or []), _key()]
            responses = operation.responses = operation.responses or {}
            for status in statuses:
                responses.setdefault(str(status), _problem(status))
            for status in _RETRY:
                response = responses.get(str(status))
                if isinstance(response, OpenAPIResponse):
                    response.headers = {**(response.headers or {}), "Retry-After": _retry_after()}


def _refuse_unknown_fields(operation: Operation, document: OpenAPI) -> None:
    """Say of bodies what decoding does: a field that nobody knows is an error."""
    known = (document.components and document.components.schemas) or {}
    content = getattr(operation.request_body, "content", None) or {}
    waiting = [media.schema for media in content.values()]
    while waiting:
        schema = waiting.pop()
        if isinstance(schema, Reference):
            schema = known.get(schema.ref.rpartition("/")[2])
        if isinstance(schema, Schema):
            if schema.properties:
                schema.additional_properties = False
            waiting += schema.one_of or ()


def _key() -> Parameter:
    return Parameter(
        name=HEADER,
        param_in="header",
        required=False,
        description=(
            "A fresh random text for every new request. The same request sent again with the same "
            "key is answered again, not carried out again."
        ),
        schema=Schema(
            type=OpenAPIType.STRING,
            min_length=1,
            max_length=KEY_MAX_CHARS,
            pattern=r"^[\x21-\x7e]+$",
        ),
    )


def _problem(status: int) -> OpenAPIResponse:
    return OpenAPIResponse(
        description=http.HTTPStatus(status).phrase,
        content={
            PROBLEM_JSON: OpenAPIMediaType(schema=Reference(ref="#/components/schemas/Problem"))
        },
    )


def _retry_after() -> OpenAPIHeader:
    return OpenAPIHeader(
        description="Seconds after which to try again.",
        schema=Schema(type=OpenAPIType.INTEGER, minimum=1),
        required=False,
    )
