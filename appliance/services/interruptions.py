"""Messages whose answer will never come: their process was killed, or the database refused what
they were answered. They get their final state, so that whoever accepted them is told the truth."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from appliance.domain.policy import QUERY_DEADLINE_SECONDS
from appliance.errors import StorageUnavailable
from appliance.logs import get_logger
from appliance.storage.database import Database

log = get_logger()

LOOK_SECONDS = 15.0
"""How often a running process looks for such messages."""

LONGEST_ANSWER = timedelta(seconds=QUERY_DEADLINE_SECONDS)


class Interruptions:
    """Marks interrupted messages as failed.

    :param alone: no other process answers queries of this database.
    """

    def __init__(self, database: Database, *, alone: bool) -> None:
        self._database = database
        self._alone = alone

    async def close_left_behind(self) -> None:
        """At the start, before the first message is accepted: where this process is alone, every
        message that waits was left behind by the process before it.

        On a full disk they keep waiting, until ``watch`` finds them old: reading goes on meanwhile.
        """
        await self._try(timedelta() if self._alone else LONGEST_ANSWER)

    async def watch(self) -> None:
        """Look from time to time, for as long as this runs. Others may be at work, so only what is
        older than any answer takes is marked."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                await self._try(LONGEST_ANSWER)
            except Exception as error:  # one failed look must not end all looking
                log.error("interruptions_failed", error=repr(error), exc_info=True)

    async def _try(self, patience: timedelta) -> None:
        try:
            await self._close(patience)
        except StorageUnavailable as error:
            log.warning("interrupted_messages_wait", detail=error.detail)

    async def _close(self, patience: timedelta) -> None:
        now = datetime.now(UTC)
        # What comes from the future was written before somebody set the clock back.
        count = await self._database.write(
            lambda records: records.messages.fail_received(now - patience, now + patience)
        )
        if count:
            log.warning("interrupted_messages", count=count)
