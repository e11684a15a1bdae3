"""Corrections: for agents and admins."""

from __future__ import annotations

from litestar import Controller, post
from litestar.params import FromPath, JSONBody

from appliance.api.auth import Caller, Desk
from appliance.api.problems import documented
from appliance.api.schemas import CorrectionRequest
from appliance.services.corrections import labels
from appliance.storage.records import LabelledMessage


class CorrectionController(Controller):
    """What people say of messages; the desk learns from it."""

    path = "/messages"
    tags = ("Learning",)

    @post(
        "/{message_id:str}/correction",
        status_code=200,
        responses=documented(400, 401, 403, 404, 409, 413),
    )
    async def correct(
        self,
        message_id: FromPath[str],
        data: JSONBody[CorrectionRequest],
        principal: Caller,
        appliance: Desk,
    ) -> LabelledMessage:
        """Correct the category, sentiment or intent of a customer's message, by its id or that of
        the answer to it. The latest word counts; the heads learn from it within seconds."""
        said = labels(data.category, data.sentiment, data.intent)
        return await appliance.corrections.correct(principal, message_id, said)
