"""Who may call what: every route of the application, once. What is not here is closed.

A guard in front of all routes asks this table, before a body is read; a test compares it with the
routes there are. To add a route, add its line. What a customer may see of what they may call is
decided by the services: somebody else's conversation is not found.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

from appliance.services.access import Principal

Caller = Literal["visitor", "customer", "agent", "admin"]
"""A visitor is a customer on the chat page; the others are the roles of keys and accounts."""

Callers = frozenset[Caller] | None
"""Who may call a route; None is anybody, without a key or session."""

ANYBODY: Final = None
KNOWN: Final[frozenset[Caller]] = frozenset(("visitor", "customer", "agent", "admin"))
STAFF: Final[frozenset[Caller]] = frozenset(("agent", "admin"))
ADMIN: Final[frozenset[Caller]] = frozenset(("admin",))
NOBODY: Final[frozenset[Caller]] = frozenset()

_API: Final = "/api/v1"

ROUTES: Final[Mapping[str, Callers]] = {
    # pages and their files
    "GET /": ANYBODY,
    "GET /login": ANYBODY,
    "GET /favicon.ico": ANYBODY,
    "GET /assets/{file_path}": ANYBODY,
    "HEAD /assets/{file_path}": ANYBODY,
    "GET /assets/swagger-ui/{file_path}": ANYBODY,
    "HEAD /assets/swagger-ui/{file_path}": ANYBODY,
    "GET /docs": ANYBODY,
    "GET /docs/openapi.json": ANYBODY,
    "GET /docs/{path}": ANYBODY,
    "GET /docs/events": ANYBODY,
    "GET /docs/events/{name}": ANYBODY,
    # decides by itself: whoever is on the machine, or an administrator's key
    "GET /metrics": ANYBODY,
    # probes
    f"GET {_API}/health": ANYBODY,
    f"GET {_API}/ready": ANYBODY,
    # customers
    f"POST {_API}/query": KNOWN,
    f"POST {_API}/query/stream": KNOWN,
    f"GET {_API}/conversations": KNOWN,
    f"GET {_API}/conversations/{{conversation_id}}": KNOWN,
    f"GET {_API}/conversations/{{conversation_id}}/messages": KNOWN,
    f"POST {_API}/conversations/{{conversation_id}}/escalate": KNOWN,
    f"POST {_API}/feedback": KNOWN,
    f"GET {_API}/kb/search": KNOWN,
    f"GET {_API}/kb/articles/{{article_id}}": KNOWN,
    f"GET {_API}/session": KNOWN,
    # signing in
    f"POST {_API}/login": ANYBODY,
    f"POST {_API}/logout": STAFF,
    f"GET {_API}/account": STAFF,
    f"POST {_API}/account/password": STAFF,
    # the desk
    f"GET {_API}/users": STAFF,
    f"GET {_API}/users/{{user_id}}": STAFF,
    f"PUT {_API}/users/{{user_id}}": STAFF,
    f"DELETE {_API}/users/{{user_id}}": ADMIN,
    f"GET {_API}/answers/{{message_id}}/record": STAFF,
    f"POST {_API}/messages/{{message_id}}/correction": STAFF,
    f"GET {_API}/stats": STAFF,
    # administration
    f"GET {_API}/kb/quarantine": ADMIN,
    f"POST {_API}/kb/quarantine/{{quarantine_id}}/release": ADMIN,
    f"POST {_API}/kb/quarantine/{{quarantine_id}}/remove": ADMIN,
    f"GET {_API}/keys": ADMIN,
    f"POST {_API}/keys": ADMIN,
    f"DELETE {_API}/keys/{{key_id}}": ADMIN,
    f"GET {_API}/accounts": ADMIN,
    f"POST {_API}/accounts": ADMIN,
    f"POST {_API}/accounts/{{username}}/disable": ADMIN,
    f"POST {_API}/accounts/{{username}}/enable": ADMIN,
    f"POST {_API}/accounts/{{username}}/unlock": ADMIN,
    f"POST {_API}/accounts/{{username}}/password": ADMIN,
    f"GET {_API}/audit": ADMIN,
    f"GET {_API}/webhooks": ADMIN,
    f"POST {_API}/query/rehearse": ADMIN,
    f"POST {_API}/webhooks": ADMIN,
    f"GET {_API}/webhooks/{{webhook_id}}": ADMIN,
    f"PUT {_API}/webhooks/{{webhook_id}}": ADMIN,
    f"DELETE {_API}/webhooks/{{webhook_id}}": ADMIN,
    f"POST {_API}/webhooks/{{webhook_id}}/test": ADMIN,
    f"POST {_API}/webhooks/{{webhook_id}}/rotate-secret": ADMIN,
    f"GET {_API}/webhooks/{{webhook_id}}/deliveries": ADMIN,
    f"POST {_API}/webhooks/{{webhook_id}}/redeliver": ADMIN,
    f"GET {_API}/webhooks/deliveries/{{delivery_id}}": ADMIN,
    f"POST {_API}/webhooks/deliveries/{{delivery_id}}/redeliver": ADMIN,
}


def callers(method: str, path: str) -> Callers:
    """Who may call a route, by its method and path template."""
    return ROUTES.get(f"{method} {path}", NOBODY)


def caller(principal: Principal) -> Caller:
    """Which column of the table somebody is."""
    return "visitor" if principal.via == "visitor" else principal.role
