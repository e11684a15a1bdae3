"""Agent 4: something does not work, or how it works."""

from __future__ import annotations

from appliance.agents.responder import Responder
from appliance.domain.policy import AnswerMode
from appliance.llm.interface import ChatModel


class TechnicalAgent(Responder):
    """Answers technical questions."""

    def __init__(self, model: ChatModel, mode: AnswerMode = "drafted") -> None:
        super().__init__(model, "technical", mode)
