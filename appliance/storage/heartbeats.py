"""When each process last wrote something."""

from __future__ import annotations

from appliance.storage.repository import Repository
from appliance.storage.tables import heartbeats
from appliance.storage.types import utc_now


class HeartbeatRepository(Repository):
    """One row for each process, by its name."""

    def beat(self, process: str) -> None:
        """Write that this process is there now."""
        now = utc_now()
        self._connection.execute(
            self._insert(heartbeats)
            .values(id=process, at=now)
            .on_conflict_do_update(index_elements=["id"], set_={"at": now})
        )
