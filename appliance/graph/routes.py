"""Where the graph turns: pure functions of the state."""

from __future__ import annotations

from typing import Literal

from appliance.domain.policy import Category
from appliance.domain.state import QueryState

Responder = Literal["technical", "billing", "account", "general", "escalate"]

RESPONDER_OF: dict[Category, Responder] = {
    "Technical": "technical",
    "Billing": "billing",
    "Account": "account",
    "General": "general",
}


def choose_responder(state: QueryState) -> Responder:
    """A reason to escalate wins; small talk goes to the general agent; then the category
    decides."""
    if state.get("escalation_reason") is not None:
        return "escalate"
    if state.get("intent", "question") != "question" and state.get("intent") != "failure":
        return "general"
    return RESPONDER_OF[state["category"]]
