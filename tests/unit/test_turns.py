"""Much work that becomes possible at once does not keep the event loop from its sockets."""

from __future__ import annotations

import asyncio

import pytest

from appliance.turns import Turns

pytestmark = pytest.mark.anyio

PIECES = 50


async def test_between_two_pieces_whoever_is_ready_comes_first() -> None:
    turns = Turns()
    order: list[str] = []

    async def piece(number: int) -> None:
        await turns.take()
        order.append(f"piece {number}")

    async def probe() -> None:
        for _ in range(4):
            await asyncio.sleep(0)
        order.append("probe")

    await asyncio.gather(*(piece(number) for number in range(PIECES)), probe())
    assert order.index("probe") <= 4
    assert [said for said in order if said != "probe"] == [f"piece {n}" for n in range(PIECES)]


async def test_who_leaves_the_queue_keeps_nobody_waiting() -> None:
    turns = Turns()
    waiting = [asyncio.create_task(turns.take()) for _ in range(3)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    waiting[1].cancel()
    await asyncio.wait_for(waiting[2], 5)
