"""From a catalog entry to a model in memory, with its weights' hash checked on the way."""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import replace

from appliance.errors import WeightsError
from appliance.llm import weights
from appliance.llm.catalog import Entry
from appliance.llm.engine.requantize import Served, choose
from appliance.llm.engine.runtime import Runtime
from appliance.llm.engine.scheduler import Loaded
from appliance.llm.engine.tuning import Tuning, available_cores, capacity, tune
from appliance.llm.templates import template
from appliance.logs import get_logger
from appliance.settings import Settings

log = get_logger()


def load(settings: Settings, entry: Entry, report: Callable[[str], None]) -> Loaded:
    """Load the model; ``report`` hears what is being done. Called by the thread that will run it.

    :raises WeightsError: the weights are missing, changed or unreadable.
    """
    served, tuning = prepare(settings, entry, report)
    report(f"loading {served.path.name}")
    runtime = Runtime(
        served.path,
        template(entry.template),
        threads=tuning.threads,
        streams=settings.engine_streams,
        kept_bytes=settings.engine_cache_mib << 20,
        drafts=tuning.drafts,
    )
    return Loaded(runtime, served.sha256, capacity(tuning))


def prepare(
    settings: Settings, entry: Entry, report: Callable[[str], None]
) -> tuple[Served, Tuning]:
    """The file to serve and how: measured at the first start, remembered afterwards.

    :raises WeightsError: the weights are missing, changed or unreadable.
    """
    cores = settings.engine_threads or available_cores()
    report("checking weights")
    served = _source(settings, entry)
    folder = weights.folder(settings)
    if entry.requantize:
        served = choose(entry, served, folder, threads=cores, report=report)
    record = folder / f"{entry.name}.tuning.json"
    tuning = tune(served.path, served.sha256, record, cores=cores, report=report)
    if settings.engine_threads:
        tuning = replace(tuning, single=cores, batch=cores)
    return served, tuning


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
