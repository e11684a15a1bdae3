"""An answer computed again: the same query with today's knowledge, heads, prompts and model."""

from __future__ import annotations

import asyncio
import difflib
import json
import time
from dataclasses import dataclass
from typing import Any

from appliance.domain.record import Difference, asked, differences, outcome_of
from appliance.domain.state import Run
from appliance.domain.text import sentences
from appliance.errors import Conflict
from appliance.services.answer_query import AnswerQuery
from appliance.services.answer_records import find
from appliance.storage.database import Database


@dataclass(frozen=True, slots=True)
class Replay:
    """How an answer comes out now.

    ``differences`` are in decisions, passages and answer; ``underneath`` is what it is made with
    that is another now. ``response`` is a unified diff, sentence by sentence, empty where the words
    are the same.
    """

    record: int
    same: bool
    differences: list[Difference]
    response: list[str]
    underneath: list[Difference]
    left: bool
    """Whether the model was stopped at the time, because the customer left or the time was up: that
    cannot be repeated."""


class AnswerReplay:
    """Runs recorded queries through the graph and stores nothing."""

    def __init__(self, database: Database, answers: AnswerQuery) -> None:
        self._database = database
        self._answers = answers

    async def __call__(self, name: str) -> Replay:
        """Compute an answer again.

        :param name: as ``AnswerRecords.show`` takes it.
        :raises NotFound: there is no such record.
        :raises Conflict: its question was erased.
        """
        record, knowledge = await self._database.read(
            lambda records: (find(records, name), records.knowledge.stand())
        )
        if record.personal is None:
            raise Conflict(
                f"Record {record.seq} is erased: its question is not known any more.",
                hint="'appliance answers show' tells what is left of it.",
            )
        content, personal = json.loads(record.content), json.loads(record.personal)
        thought = await self._answers.think(
            asked(personal), knowledge, Run(_unheard), started=time.perf_counter()
        )
        now = thought.record
        then, today = outcome_of(content, personal), outcome_of(now.content, now.personal)
        before, after = then["answer"].pop("response"), today["answer"].pop("response")
        found = list(differences(then, today))
        response = _diff(before, after)
        return Replay(
            record=record.seq,
            same=not found and before == after,
            differences=found,
            response=response,
            underneath=list(differences(content["made_with"], now.content["made_with"])),
            left=content["left"],
        )


def _diff(then: str, now: str) -> list[str]:
    return list(difflib.unified_diff(_lines(then), _lines(now), "then", "now", lineterm=""))


def _lines(text: str) -> list[str]:
    return [part for line in text.splitlines() for part in sentences(line) or [""]]


async def _unheard(event: str, data: dict[str, Any]) -> None:
    await asyncio.sleep(0)
