"""The order of a bench: limit and engine in turns, then whole queries, then what they add up to."""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from appliance.domain.policy import ANSWER_MAX_TOKENS
from appliance.errors import ApplianceError
from appliance.evaluation.bench import wire
from appliance.evaluation.bench.desk import Asked, ask, at_once, percentiles, summary
from appliance.evaluation.bench.limit import PROMPT, READ, RawLoop, Seam, in_turns
from appliance.llm.engine.tuning import PATIENCE_SECONDS, Capacity, Tuning
from appliance.llm.interface import ChatModel
from appliance.llm.templates import template
from appliance.services.answer_query import AnswerQuery

STREAMS: Final = (1, 2, 4, 8, 16)
CUSTOMERS: Final = 8


@dataclass(frozen=True, slots=True)
class Subject:
    """What is measured: a file of weights and how it is served."""

    path: Path
    template_id: str
    tuning: Tuning


Tick = Callable[[str], None]


async def engine(
    subject: Subject, served: ChatModel, *, turns: int, streams: Sequence[int], tick: Tick
) -> dict[str, Any]:
    """Prompt and generation speed at the scheduler and over HTTP, beside the bare loop."""
    told: dict[str, Any] = {"streams": {}}
    threads = subject.tuning.threads
    story = 0
    for count in streams:
        raw = RawLoop(subject.path, streams=count, threads=threads)
        seam = Seam(subject.path, template(subject.template_id), streams=count, threads=threads)
        await seam.start()
        try:
            at_seam, over_http = [], []
            for turn in range(turns):
                prompts = [_prompt(1000 * turn + at, PROMPT) for at in range(count)]
                limit = await asyncio.to_thread(raw.write, prompts)
                at_seam.append((limit, await seam.write(prompts)))
                limit = await asyncio.to_thread(raw.write, prompts)
                over_http.append((limit, await wire.write(served, count, first=story)))
                story += count
                tick(f"{count} streams")
            told["streams"][count] = {"seam": in_turns(at_seam), "http": in_turns(over_http)}
            if count == 1:
                pairs = []
                for turn in range(turns):
                    limit = await asyncio.to_thread(raw.read, _prompt(7 * turn, READ))
                    pairs.append((limit, await seam.read(_prompt(7 * turn + 3, READ))))
                told["reading"] = in_turns(pairs)
        finally:
            seam.stop()
            raw.close()
    firsts = [await wire.first_token(served, story + number) for number in range(2 * turns)]
    told["first_token"] = percentiles(firsts)
    return told


async def queries(
    desks: dict[str, AnswerQuery],
    texts: Sequence[str],
    pipeline: Tutorial | None,
    *,
    default: str,
    tick: Tick,
) -> dict[str, Any]:
    """Whole queries: each text in every mode and, where asked for, through the usual pipeline.

    A third is asked by one customer at a time, the others by several at once, most of them in the
    default mode, so that no prompt is known from before.
    """
    alone = len(texts) // 3
    others = len(desks) - 1
    each = max(1, min(CUSTOMERS, (len(texts) - alone) // len(desks)))
    load = {mode: each for mode in desks if mode != default}
    load[default] = max(each, len(texts) - alone - others * each)
    by_mode: dict[str, list[Asked]] = {mode: [] for mode in desks}
    usual: list[tuple[dict[str, Any], dict[str, Asked]]] = []
    for text in texts[:alone]:
        answers = {mode: await ask(desk, text) for mode, desk in desks.items()}
        for mode, answer in answers.items():
            by_mode[mode].append(answer)
        if pipeline is not None and answers[default].with_model:
            usual.append((await pipeline.answer(text, answers[default].shown), answers))
        tick("queries")
    loads = {}
    together: dict[str, list[Asked]] = {}
    left = list(texts[alone:])
    for mode, desk in desks.items():
        part, left = left[: load[mode]], left[load[mode] :]
        together[mode], seconds = await at_once(lambda t, d=desk: ask(d, t), part, CUSTOMERS)  # type: ignore[misc]
        loads[mode] = {
            **summary(together[mode]),
            "customers": CUSTOMERS,
            "queries_a_second": round(len(part) / seconds, 4),
        }
        tick(f"{CUSTOMERS} customers")
    told: dict[str, Any] = {
        "one_customer": {mode: summary(asked) for mode, asked in by_mode.items()},
        "at_once": loads,
    }
    if usual:
        told["pipeline"] = _against_pipeline(usual, loads[default], default)
    rate = loads[default]["queries_a_second"]
    words = told["one_customer"][default]["first_words"]["p50"]
    told["this_box"] = Capacity(max(1, int(rate * PATIENCE_SECONDS)), words)
    return told


def _against_pipeline(
    usual: Sequence[tuple[dict[str, Any], dict[str, Asked]]], load: dict[str, Any], default: str
) -> dict[str, Any]:
    seconds = [said["seconds"] for said, _ in usual]
    evaluated = statistics.mean(answers[default].evaluated for _, answers in usual)
    prompt = statistics.mean(said["prompt"] for said, _ in usual)
    p50 = statistics.median(seconds)
    ratios = {
        mode: round(statistics.median(answers[mode].seconds for _, answers in usual) / p50, 3)
        for mode in usual[0][1]
    }
    a_second = 1 / statistics.mean(seconds)
    return {
        "queries": len(usual),
        "seconds": percentiles(seconds),
        "prompt_tokens": round(prompt, 1),
        "tokens_generated": round(statistics.mean(said["generated"] for said, _ in usual), 1),
        "queries_a_second": round(a_second, 3),
        "ratios": {
            "p50_by_mode": ratios,
            "prompt_tokens": round(evaluated / prompt, 3),
            "throughput": round(load["queries_a_second"] / a_second, 2),
        },
    }


def _prompt(seed: int, length: int) -> list[int]:
    """Tokens without meaning, other ones for every seed: greedy text after them goes on and on."""
    return [300 + (seed * 7919 + at * 104_729) % 20_000 for at in range(length)]


class Tutorial:
    """The pipeline in its process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    @asynccontextmanager
    async def run(cls, subject: Subject) -> AsyncGenerator[Tutorial, None]:
        """Start it for the time of a bench."""
        threads = str(subject.tuning.threads.batch)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "appliance.evaluation.bench.tutorial"),
            *(str(subject.path), subject.template_id, threads),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        pipeline = cls(process)
        try:
            await pipeline._read()
            yield pipeline
        finally:
            assert process.stdin is not None
            process.stdin.close()
            await process.wait()

    async def answer(self, query: str, passages: Sequence[str]) -> dict[str, Any]:
        """See ``tutorial.Pipeline.answer``."""
        assert self._process.stdin is not None
        asked = {"query": query, "passages": passages, "max_tokens": ANSWER_MAX_TOKENS}
        self._process.stdin.write(json.dumps(asked).encode() + b"\n")
        await self._process.stdin.drain()
        return await self._read()

    async def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        if not line:
            raise ApplianceError("The pipeline to compare with ended; its weights may be wrong.")
        document: dict[str, Any] = json.loads(line)
        return document
