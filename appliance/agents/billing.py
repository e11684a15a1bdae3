"""Agent 5: money. What it flags is what a desk must not overlook."""

from __future__ import annotations

import re

from appliance.agents.responder import Responder
from appliance.llm.interface import ChatModel

FLAGS: dict[str, re.Pattern[str]] = {
    "refund": re.compile(r"\brefund\w*|\bmoney\s+back\b|\breimburs\w*", re.IGNORECASE),
    "dispute": re.compile(
        r"\bdisput\w*|\b(?:wrong(?:ly)?|twice|double)\s+(?:charg|bill)\w*", re.IGNORECASE
    ),
    "chargeback": re.compile(r"\bcharge\s?-?backs?\b", re.IGNORECASE),
    "cancel_subscription": re.compile(
        r"\b(?:cancel\w*|terminat\w*|end|stop)\b.{0,40}\b(?:subscription|plan|membership|contract)\b"
        r"|\bunsubscribe\b",
        re.IGNORECASE | re.DOTALL,
    ),
}


class BillingAgent(Responder):
    """Answers billing questions and flags refund, dispute, chargeback and cancellation."""

    def __init__(self, model: ChatModel) -> None:
        super().__init__(model, "billing")

    def flags(self, text: str) -> tuple[str, ...]:
        return tuple(name for name, pattern in FLAGS.items() if pattern.search(text))
