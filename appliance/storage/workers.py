"""Signs of life of the workers, and the model that was last seen to serve."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import delete, select

from appliance.storage.records import ServedModel, Worker
from appliance.storage.repository import Repository, columns_for
from appliance.storage.tables import served_model, workers

_COLUMNS = columns_for(Worker, workers)
_SERVED = columns_for(ServedModel, served_model)


class WorkerRepository(Repository):
    """Workers. Each writes a row of its own; who runs is told by how fresh it is."""

    def beat(self, worker: Worker) -> None:
        """``worker`` is alive at its ``seen_at``."""
        row = {column.name: getattr(worker, column.name) for column in _COLUMNS}
        statement = self._insert(workers).values(row)
        self._connection.execute(
            statement.on_conflict_do_update(
                index_elements=["id"], set_={"seen_at": statement.excluded.seen_at}
            )
        )

    def latest(self) -> Worker | None:
        """The one that was heard of last."""
        newest = select(*_COLUMNS).order_by(workers.c.seen_at.desc()).limit(1)
        return self._first(Worker, newest)

    def leave(self, worker_id: str) -> None:
        """It ends in good order."""
        self._connection.execute(delete(workers).where(workers.c.id == worker_id))

    def forget(self, before: datetime) -> None:
        """Remove those not heard of since then."""
        self._connection.execute(delete(workers).where(workers.c.seen_at < before))


class ServedModelRepository(Repository):
    """One row: what the engine was last seen to serve."""

    def replace(self, served: ServedModel) -> ServedModel | None:
        """Note what serves now, and return what did before; None when it is the same, or the first
        one ever."""
        locked = select(*_SERVED).with_for_update()
        before = self._first(ServedModel, locked)
        if before is not None and _same(before, served):
            return None
        row = {column.name: getattr(served, column.name) for column in _SERVED}
        statement = self._insert(served_model).values(id=1, **row)
        self._connection.execute(statement.on_conflict_do_update(index_elements=["id"], set_=row))
        return before


def _same(one: ServedModel, other: ServedModel) -> bool:
    """A hash that only one of them has tells of no difference."""
    hashes = {one.sha256, other.sha256} - {None}
    return one.model == other.model and len(hashes) < 2
