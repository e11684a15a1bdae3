"""Agent 6: accounts and everything else, small talk included."""

from __future__ import annotations

from appliance.agents.responder import SMALLTALK, Responder
from appliance.answering import wording
from appliance.answering.selection import fitting
from appliance.domain.answer import Answer
from appliance.domain.state import QueryState, Run


class GeneralAgent(Responder):
    """Serves two nodes: ``account``, whose prompt never asks for or reveals secrets, and
    ``general``."""

    async def __call__(self, state: QueryState, run: Run) -> QueryState:
        intent = state.get("intent", "question")
        if intent not in SMALLTALK or (intent == "offtopic" and fitting(state.get("passages", ()))):
            # What looks like chatter but has an article is a question: "UP-413 again. sigh."
            return await super().__call__(state, run)
        await run.say(wording.SMALLTALK[intent])
        return {"answer": Answer(run.response, "smalltalk")}
