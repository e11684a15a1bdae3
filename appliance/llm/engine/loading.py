"""From a catalog entry to a model in memory, with its weights' hash checked on the way."""

from __future__ import annotations

import os
from collections.abc import Callable

from appliance.errors import WeightsError
from appliance.llm import weights
from appliance.llm.catalog import Entry
from appliance.llm.engine.requantize import Served, choose
from appliance.llm.engine.runtime import Runtime
from appliance.llm.engine.scheduler import Loaded
from appliance.llm.templates import template
from appliance.logs import get_logger
from appliance.settings import Settings

log = get_logger()


def load(settings: Settings, entry: Entry, report: Callable[[str], None]) -> Loaded:
    """Load the model; ``report`` hears what is being done. Called by the thread that will run it.

    :raises WeightsError: the weights are missing, changed or unreadable.
    """
    threads = settings.engine_threads or len(os.sched_getaffinity(0))
    report("checking weights")
    served = _source(settings, entry)
    if entry.requantize:
        folder = weights.folder(settings)
        served = choose(entry, served, folder, threads=threads, report=report)
    report(f"loading {served.path.name}")
    runtime = Runtime(served.path, template(entry.template), threads=threads)
    return Loaded(runtime, served.sha256)


def _source(settings: Settings, entry: Entry) -> Served:
    """The entry's own file. Packaged weights are copied to the data folder, as a backup needs."""
    packaged = entry.packaged_file()
    if packaged is not None and entry.sha256 is not None:
        try:
            return Served(weights.place(settings, entry), entry.sha256)
        except (OSError, WeightsError) as error:
            log.warning("weights stay in their package", why=str(error))
        if weights.digest(packaged) == entry.sha256:
            return Served(packaged, entry.sha256)
        raise WeightsError(f"{packaged} is not the file the catalog knows.")
    verified = weights.verify(settings, entry.name)
    return Served(weights.folder(settings) / verified.file, verified.sha256)
