"""``appliance bench``: what this box can do, beside its limit and beside the usual pipeline."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from appliance.cli.output import fail, json_option, note, prepare, print_json, progress, run, table

if TYPE_CHECKING:
    from appliance.bootstrap import Appliance
    from appliance.settings import Settings

TURNS = 5
QUERIES = 72
QUICK_TURNS = 1
QUICK_QUERIES = 36


@click.command()
@click.option("--baseline", is_flag=True, help="Also run the pipeline that tutorials show.")
@click.option("--quick", is_flag=True, help="Fewer turns and queries: rough figures in a minute.")
@click.option("--queries", type=click.IntRange(min=3), help="How many whole queries of each mode.")
@click.option("--clients", type=click.IntRange(min=1), help="Instead: so many customers at once.")
@click.option(
    "--seconds",
    type=click.FloatRange(min=1),
    default=60.0,
    help="How long they ask.",
    show_default=True,
)
@json_option
def bench(
    baseline: bool,
    quick: bool,
    queries: int | None,
    clients: int | None,
    seconds: float,
    as_json: bool,
) -> None:
    """Measure model, engine and whole queries on this machine; takes some minutes of all of it.

    With --clients: load on a desk of its own with the scripted twin of the model.
    """
    settings = prepare("bench")
    if clients is not None:
        from appliance.cli.bench_load import measure, show

        told = run(measure(clients, seconds))
        (print_json if as_json else show)(told)
        return

    async def benching() -> dict[str, Any]:
        import tempfile

        from appliance.operations.client import engine_at_hand

        with tempfile.TemporaryDirectory(prefix="appliance-bench-") as folder:
            async with engine_at_hand(settings) as well:
                if not well:
                    return {}
                count = queries or (QUICK_QUERIES if quick else QUERIES)
                return await _measure(
                    settings, Path(folder), baseline=baseline, quick=quick, count=count
                )

    card = run(benching())
    if not card:
        fail("The engine does not come up.", "'appliance doctor' says why.")
        raise click.exceptions.Exit(1)
    if as_json:
        print_json(card)
    else:
        _print(card)


async def _measure(
    settings: Settings, folder: Path, *, baseline: bool, quick: bool, count: int
) -> dict[str, Any]:
    from appliance.evaluation.bench import run as benches
    from appliance.evaluation.golden import read_golden
    from appliance.llm import weights
    from appliance.llm.engine.loading import prepare as prepare_weights
    from appliance.llm.openai_client import OpenAIChatModel
    from appliance.llm.scripted import ScriptedModel
    from appliance.operations.engine_keeper import health
    from appliance.settings import HOME

    entry = weights.active(settings)
    served, tuning = prepare_weights(settings, entry, note)
    subject = benches.Subject(served.path, entry.template, tuning)
    texts = [
        item.text
        for item in read_golden(HOME / "kb" / "golden.jsonl")
        if item.answerable and not item.escalate and not item.history
    ]
    texts = texts[:count]
    turns = QUICK_TURNS if quick else TURNS
    streams = (1, 8) if quick else benches.STREAMS
    length = turns * len(streams) + len(texts) // 3 + 3 + len(texts)
    with progress(length, "bench") as bar:

        def tick(_: str) -> None:
            bar.update(1)

        async with AsyncExitStack() as stack:
            model = OpenAIChatModel(socket=settings.engine_socket, timeout=300.0)
            stack.push_async_callback(model.aclose)
            desks = {}
            for mode in ("curated", "drafted", "quoted"):
                opened = _desk(
                    settings,
                    folder / mode,
                    mode,
                    OpenAIChatModel(socket=settings.engine_socket, timeout=300.0),
                )
                desks[mode] = (await stack.enter_async_context(opened)).ready.answer_query
            scripted = await stack.enter_async_context(
                _desk(settings, folder / "scripted", "drafted", ScriptedModel())
            )
            overhead = await _overhead(scripted, texts, tick)
            memory = {
                "api": _resident("self"),
                "engine": _resident(health(settings.engine_socket).get("pid")),
            }
            pipeline = None
            if baseline:
                pipeline = await stack.enter_async_context(benches.Tutorial.run(subject))
            whole = await benches.queries(
                desks, texts, pipeline, default=settings.answer_mode, tick=tick
            )
            engine = await benches.engine(subject, model, turns=turns, streams=streams, tick=tick)
    return {
        "model": entry.name,
        "file": served.path.name,
        "threads": {"single": tuning.single, "batch": tuning.batch},
        "drafts": tuning.drafts,
        "mode": settings.answer_mode,
        "engine": engine,
        **whole,
        "without_model": overhead,
        "memory_mib": memory,
    }


@asynccontextmanager
async def _desk(
    settings: Settings, folder: Path, mode: str, model: Any
) -> AsyncIterator[Appliance]:
    """A desk of its own with the starter knowledge, which forgets everything afterwards."""
    from appliance.bootstrap import Appliance
    from appliance.cli.measured_desk import take_over
    from appliance.knowledge.importers import read_faqs
    from appliance.services.knowledge import save_articles
    from appliance.settings import HOME
    from appliance.storage.migrate import upgrade

    own = settings.model_copy(
        update={
            "data_dir": folder,
            "runtime_dir": None,
            "database_url": "",
            "answer_mode": mode,
            "remote_enabled": False,
        }
    )
    folder.mkdir(parents=True)
    for made_in in (settings.data_dir, *(d for d in folder.parent.iterdir() if d != folder)):
        take_over(made_in, folder)
    upgrade(own.resolved_database_url)
    appliance = Appliance(own, model=model)
    try:
        await save_articles(appliance.database, read_faqs(HOME / "kb" / "faqs.json"), replace=True)
        await appliance.prepare()
        await appliance.monitor.look()
        yield appliance
    finally:
        await appliance.aclose()


async def _overhead(appliance: Appliance, texts: list[str], tick: Any) -> dict[str, Any]:
    """Everything but the model: API, graph, storage, encoding and retrieval."""
    import time
    import uuid

    import httpx

    from appliance.api.app import create_app
    from appliance.api.auth import OperatorSocket
    from appliance.evaluation.bench.desk import percentiles

    app: Any = OperatorSocket(create_app(appliance))
    transport = httpx.ASGITransport(app=app)
    seconds: list[float] = []
    stages: dict[str, list[float]] = {}
    async with httpx.AsyncClient(transport=transport, base_url="http://bench") as client:
        for text in texts:
            body = {"user_id": f"bench-{uuid.uuid4().hex}", "message": text}
            started = time.perf_counter()
            answer = await client.post("/api/v1/query", json=body)
            seconds.append(time.perf_counter() - started)
            answer.raise_for_status()
            for stage, took in answer.json()["metadata"]["stages"].items():
                stages.setdefault(stage, []).append(took)
            tick("without the model")
    return {
        "seconds": percentiles(seconds),
        "stages": {stage: percentiles(took) for stage, took in sorted(stages.items())},
    }


def _resident(process: Any) -> float | None:
    """Memory of a process in MiB."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return None
    line = next(line for line in status.splitlines() if line.startswith("VmRSS"))
    return round(int(line.split()[1]) / 1024, 1)


def _print(card: dict[str, Any]) -> None:
    import msgspec

    card = msgspec.to_builtins(card)
    threads = card["threads"]
    click.echo(
        f"{card['model']} ({card['file']}), {threads['single']}/{threads['batch']} threads, "
        f"drafts {'on' if card['drafts'] else 'off'}\n\ntokens a second"
    )
    rows: list[tuple[Any, ...]] = [("reading", *_cells(card["engine"]["reading"]), "", "", "")]
    for count, rates in card["engine"]["streams"].items():
        rows.append((f"writing x {count}", *_cells(rates["seam"]), *_cells(rates["http"])))
    table(("", "limit", "engine", "ratio", "limit", "HTTP", "ratio"), rows)
    click.echo("\nwhole queries, seconds")
    rows = []
    for title, part in (("1 customer", "one_customer"), ("8 customers", "at_once")):
        for mode, told in card[part].items():
            rows.append(
                (
                    title,
                    mode,
                    told["seconds"]["p50"],
                    told["seconds"]["p95"],
                    told["first_words"]["p50"],
                    told.get("queries_a_second", ""),
                    told["prompt_tokens_evaluated"],
                    told["tokens_generated"],
                )
            )
    without = card["without_model"]["seconds"]
    rows.append(("no model", "", without["p50"], without["p95"], "", "", "", ""))
    usual = card.get("pipeline")
    if usual:
        rows.append(
            (
                "pipeline",
                "",
                usual["seconds"]["p50"],
                usual["seconds"]["p95"],
                "",
                usual["queries_a_second"],
                usual["prompt_tokens"],
                usual["tokens_generated"],
            )
        )
    table(("", "mode", "p50", "p95", "first words", "a second", "read", "written"), rows)
    if usual:
        ratios = usual["ratios"]
        by_mode = ", ".join(f"{mode} {value}" for mode, value in ratios["p50_by_mode"].items())
        click.echo(
            f"\nagainst the pipeline: p50 {by_mode}; prompt tokens {ratios['prompt_tokens']}; "
            f"throughput x {ratios['throughput']}"
        )
    stages = card["one_customer"][card["mode"]]["stages"]
    click.echo("\nstages, seconds")
    table(("stage", "p50", "p95"), [(name, s["p50"], s["p95"]) for name, s in stages.items()])
    memory = ", ".join(f"{name} {mib} MiB" for name, mib in card["memory_mib"].items())
    box = card["this_box"]
    click.echo(
        f"\nmemory: {memory}\nthis box: about {box['customers_at_once']} customers at once, "
        f"first words in {box['first_words']:.1f} s"
    )


def _cells(rates: dict[str, float]) -> tuple[float, float, float]:
    raw, engine, ratio = rates.values()
    return raw, engine, ratio
