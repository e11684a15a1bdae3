"""Answer records: for agents and admins."""

from __future__ import annotations

from litestar import Controller, get
from litestar.params import FromPath

from appliance.api.auth import Caller, Desk
from appliance.api.problems import documented
from appliance.services.answer_records import Shown


class AnswerController(Controller):
    """How answers came about."""

    path = "/answers"
    tags = ("Answers",)

    @get("/{message_id:str}/record", responses=documented(400, 401, 403, 404))
    async def get_record(
        self, message_id: FromPath[str], principal: Caller, appliance: Desk
    ) -> Shown:
        """The record of an answer: passages, decisions, what was cut, and what it was made with."""
        return await appliance.answer_records.show_to(principal, message_id)
