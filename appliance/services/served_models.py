"""Which model serves: the API tells the world when another one does.

A switch is made by the engine's keeper, which knows no database, or by a restart of vLLM with other
settings. What both end in is that another model answers, and whoever asks it sees that first. The
last one seen is kept in the database, so that a switch while the API was down is told as well, and
told once by however many API processes there are.
"""

from __future__ import annotations

from datetime import UTC, datetime

from appliance.llm.interface import ModelHealth
from appliance.logs import get_logger
from appliance.storage.database import Database, Records
from appliance.storage.records import ServedModel

log = get_logger()


class ServedModels:
    """Knows the model that this process saw last, and writes down when it is another."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._seen: tuple[str, str | None] | None = None

    async def seen(self, health: ModelHealth) -> None:
        """A model was seen to serve.

        Only what is new to this process is compared with the database: two machines with a model
        each would tell of a switch at every look otherwise.
        """
        if health.model is None or (health.model, health.sha256) == self._seen:
            return
        served = ServedModel(health.model, health.sha256, datetime.now(UTC))

        def work(records: Records) -> ServedModel | None:
            before = records.served_model.replace(served)
            if before is not None:
                records.events.add(
                    "model.switched",
                    data={
                        "model": served.model,
                        "sha256": served.sha256,
                        "previous": before.model,
                    },
                )
            return before

        before = await self._database.write(work)
        self._seen = (health.model, health.sha256)
        if before is not None:
            log.info("model_switched", model=served.model, previous=before.model)
