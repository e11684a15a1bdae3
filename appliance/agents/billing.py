"""Agent 5: money. What it flags is what a desk must not overlook."""

from __future__ import annotations

from appliance.agents.responder import Responder
from appliance.domain.policy import AnswerMode
from appliance.llm.interface import ChatModel
from appliance.understanding.flags import billing_flags


class BillingAgent(Responder):
    """Answers billing questions and flags refund, dispute, chargeback and cancellation."""

    def __init__(self, model: ChatModel, mode: AnswerMode = "drafted") -> None:
        super().__init__(model, "billing", mode)

    def flags(self, text: str) -> tuple[str, ...]:
        return billing_flags(text)
