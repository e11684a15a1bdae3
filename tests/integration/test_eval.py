"""``appliance eval`` on sets of every shape: in this process over twins, and as a command with the
embedding model."""

from __future__ import annotations

import json
import stat
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from appliance.bootstrap import Appliance
from appliance.domain.policy import MESSAGE_MAX_CHARS
from appliance.errors import InvalidInput
from appliance.evaluation.compare import Report, compare
from appliance.evaluation.golden import read_golden
from appliance.evaluation.metrics import is_figure, report
from appliance.evaluation.run import run_golden
from appliance.knowledge.embedding import HashedEmbedder
from appliance.llm.scripted import ScriptedModel
from appliance.services.knowledge import save_articles
from appliance.settings import Settings
from appliance.storage import migrate
from tests.appliance_process import FAQS, ApplianceProcess
from tests.builders import PASSWORD, REFUND, SMALL_BASE

Card = dict[str, Any]

# --- over twins -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def appliance(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Appliance]:
    """A desk that knows four articles, finds them by their words, and has no model."""
    folder = tmp_path_factory.mktemp("desk")
    settings = Settings(data_dir=folder / "data", runtime_dir=folder / "run")
    settings.data_dir.mkdir(mode=0o700)
    migrate.upgrade(settings.resolved_database_url)
    made = Appliance(settings, model=ScriptedModel(fail_after=0), embedder=HashedEmbedder())
    await save_articles(made.database, SMALL_BASE, replace=True)
    await made.prepare()
    yield made
    await made.aclose()


def golden(folder: Path, *lines: dict[str, Any]) -> Path:
    """A golden set with these lines."""
    file = folder / "set.jsonl"
    file.write_text("\n".join(json.dumps(line) for line in lines), encoding="utf-8")
    return file


async def measured(appliance: Appliance, file: Path) -> Card:
    outcomes = [o async for o in run_golden(appliance.ready.graph, read_golden(file))]
    card: Card = msgspec.to_builtins(report(outcomes, None))
    return card


@pytest.mark.anyio
@pytest.mark.parametrize(
    "lines",
    [
        [{"text": "Hello?"}],
        [{"text": "Hello?", "unheard_of": {"of": 1}, "kind": "new", "intent": "new"}],
        [{"text": "Hello?", "category": "General"}, {"text": "Hello?", "category": "General"}],
        [{"text": "Fine.", "sentiment": "Neutral", "source": "a.b"}, {"text": "x", "source": "c"}],
        [{"text": "Hm", "escalate": True}],
        [{"text": "Hm", "escalate": True, "answerable": True, "must_include": ["x"]}],
        [{"text": "Hm", "faq": "nowhere"}, {"text": "Hm", "faq": 21}],
        [{"text": "Hm", "answerable": False, "kind": "missing"}],
        [{"text": "Hm", "must_not_include": ["x"], "must_include": [], "history": []}],
        [{"text": "émile 🙂 ?! \u2028 \u200b x"}],
    ],
)
async def test_a_set_may_state_whatever_it_likes(
    appliance: Appliance, tmp_path: Path, lines: list[dict[str, Any]]
) -> None:
    card = await measured(appliance, golden(tmp_path, *lines))
    assert card["n"] == len(card["items"]) == len(lines)
    run = Report("itself", card)
    assert all(is_figure(figure) for figure in run.figures)
    assert compare(run, Report("itself", json.loads(json.dumps(card)))).regressions == []


@pytest.mark.anyio
async def test_texts_may_be_as_long_as_messages_and_no_longer(
    appliance: Appliance, tmp_path: Path
) -> None:
    long = (PASSWORD.question + " " + "word " * MESSAGE_MAX_CHARS)[:MESSAGE_MAX_CHARS].rstrip()
    long += "." * (MESSAGE_MAX_CHARS - len(long))
    turns = [{"role": "user", "content": long}, {"role": "assistant", "content": long}]
    line = {"text": long, "history": turns * 4, "category": "Account", "escalate": False}
    card = await measured(appliance, golden(tmp_path, line))
    assert card["category"]["n"] == 1
    assert len(card["items"][0]["text"]) == MESSAGE_MAX_CHARS
    assert len(card["items"][0]["history"]) == 8
    for text in (long + "!", "", " \u200b "):
        with pytest.raises(InvalidInput, match="line 2"):
            read_golden(golden(tmp_path, {"text": "Hello?"}, {"text": text}))


@pytest.mark.anyio
async def test_secrets_are_taken_out_as_at_the_desk(appliance: Appliance, tmp_path: Path) -> None:
    line = {"text": "How do I reset my password? My password is hunter22secret"}
    card = await measured(appliance, golden(tmp_path, line))
    assert "hunter22secret" not in card["items"][0]["response"]
    assert card["items"][0]["response"].startswith("I have removed what looks like a password")


# --- as a command ---------------------------------------------------------------------------------

QUERIES: list[dict[str, Any]] = [
    # Seven that are answered, with a word that is forbidden on purpose.
    *(
        {
            "text": text,
            "category": "Account",
            "escalate": False,
            "must_not_include": ["password"],
            "source": "resets",
        }
        for text in (
            *("How do I reset my password?", "I forgot my password, how do I get a new one?"),
            *("Where is the password reset link?", "My password reset link does not work any more"),
            *(
                "Can I change my password?",
                "password reset please",
                "Reset the password of my login",
            ),
        )
    ),
    {
        "text": "I will call my lawyer.",
        "escalate": True,
        "sentiment": "Negative",
        "source": "legal",
    },
    {
        "text": "Can I talk to a human agent?",
        "escalate": True,
        "intent": "person",
        "source": "legal",
    },
    {
        "text": "What is your refund policy?",
        "category": "Billing",
        "sentiment": "Neutral",
        "escalate": False,
        "faq": 12,
        "answerable": True,
        "must_include": ["14 days", "Request refund"],
        "source": "refunds",
    },
    {
        "text": "And for monthly ones?",
        "history": [
            {"role": "user", "content": "What is your refund policy?"},
            {"role": "assistant", "content": REFUND.answer},
        ],
        "faq": 12,
        "source": "refunds",
        "kind": "followup",
    },
    {"text": "Do you sell bicycles?", "answerable": False, "kind": "missing", "source": "refunds"},
]


@pytest.fixture(scope="module")
def desk(prepared_home: Path) -> Iterator[ApplianceProcess]:
    """A data folder without a database, an engine or articles."""
    desk = ApplianceProcess(prepared_home)
    kb = [
        {"id": a.id, "question": a.question, "answer": a.answer, "category": a.category}
        for a in SMALL_BASE
    ]
    (desk.folder / "kb.json").write_text(json.dumps({"faqs": kb}), encoding="utf-8")
    golden(desk.folder, *QUERIES)
    yield desk
    desk.clean()


ARGUMENTS = ("eval", "--kb", "kb.json", "--set", "set.jsonl", "--no-model")


@pytest.fixture(scope="module")
def saved(desk: ApplianceProcess) -> Card:
    """A run with the embedding model, kept in ``run.json``."""
    done = desk.cli(*ARGUMENTS, "--json", "--save", "run.json", "--min", "retrieval.recall_at_3=1")
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    kept: Card = json.loads((desk.folder / "run.json").read_text(encoding="utf-8"))
    assert "items" not in printed, "customers' words are printed where they are asked for"
    assert printed == {k: v for k, v in kept.items() if k != "items"}
    return kept


def test_another_companys_set_is_measured_beside_the_desk(
    desk: ApplianceProcess, saved: Card
) -> None:
    assert saved["n"] == len(saved["items"]) == len(QUERIES)
    assert saved["run"] == {
        "set": "set.jsonl",
        "kb": "kb.json",
        "answer_mode": "drafted",
        "with_model": False,
    }
    assert (saved["model"], saved["failures"]) == (None, {})
    assert set(saved["modes"]) == {"curated"}
    assert saved["category"]["accuracy"] == 1.0
    assert set(saved["category"]["by_source"]) == {"resets", "refunds"}
    assert saved["category"]["ece"] < 0.5
    assert saved["escalation"]["by_reason"]["phrase"] == {"recall": 1.0, "n": 1}
    assert saved["escalation"]["by_reason"]["person"] == {"recall": 1.0, "n": 1}
    assert saved["answers"]["exact"] == 1.0
    assert saved["abstention"]["missing"]["n"] == 1
    asked = {item["text"]: item for item in saved["items"]}
    assert asked["What is your refund policy?"]["found"]["faqs"][0] == "12"
    assert not (desk.data_dir / "appliance.db").exists()
    assert stat.S_IMODE((desk.folder / "run.json").stat().st_mode) == 0o600


def test_the_table_shows_figures_confusion_sources_and_mistakes(
    desk: ApplianceProcess, saved: Card
) -> None:
    lines = [dict(query) for query in QUERIES]
    lines[0]["category"] = "Technical"
    (desk.folder / "wrong.jsonl").write_text("\n".join(map(json.dumps, lines)))
    done = desk.cli("eval", "--kb", "kb.json", "--set", "wrong.jsonl", "--no-model", "--worst", "1")
    assert done.returncode == 0, done.stderr
    figures, category, *_ = done.stdout.split("\n\n")
    told = {row[0]: row[1:] for row in map(str.split, figures.splitlines())}
    assert told["category.accuracy"] == ["0.875", "8"]
    assert told["escalation.by_reason.person.recall"] == ["1.000", "1"]
    rows = [row.split() for row in category.splitlines()]
    assert rows[0][3:] == ["found", "Billing", "Account", "total"]
    assert rows[1:] == [
        ["Technical", "0", "1", "1"],
        ["Billing", "1", "0", "1"],
        ["Account", "0", "6", "6"],
        ["total", "1", "7", "8"],
    ]
    assert len({len(row) for row in category.splitlines()}) == 1, "the columns stand in line"
    assert "wrong category, surest first" in done.stdout
    assert any(row.split()[:1] == ["resets"] for row in done.stdout.splitlines())


def test_a_run_is_compared_with_an_earlier_one(desk: ApplianceProcess, saved: Card) -> None:
    done = desk.cli(*ARGUMENTS, "--json", "--compare", "run.json")
    assert done.returncode == 0, done.stderr
    compared = json.loads(done.stdout)["compare"]
    assert (compared["paired"], compared["shared"]) == (True, len(QUERIES))
    assert compared["regressions"] == []
    moved = [c["figure"] for c in compared["changes"] if c["difference"] and c["verdict"] != "told"]
    assert moved == [], "the same desk answers the same"


@pytest.mark.parametrize(("better", "status"), [(7, 1), (5, 0)])
def test_a_run_is_worse_only_beyond_what_chance_explains(
    better: int, status: int, desk: ApplianceProcess, saved: Card
) -> None:
    """The earlier run is made up: fewer of its answers said what they must not say."""
    figure, earlier = "answers.forbidden_rate", json.loads(json.dumps(saved))
    for item in earlier["items"][:better]:
        assert item["scores"][figure] == [1.0]
        item["scores"][figure] = [0.0]
    (desk.folder / "better.json").write_text(json.dumps(earlier), encoding="utf-8")
    done = desk.cli(*ARGUMENTS, "--compare", "better.json")
    assert done.returncode == status, done.stderr
    row = next(
        line for line in done.stdout.splitlines() if line.startswith(f"{figure} ") and "+" in line
    )
    assert row.split()[3:6] == [f"+{better / 7:.3f}", str(better), "0"]
    assert row.endswith("WORSE") == bool(status)
    assert (f"more than chance explains: {figure}." in done.stderr) == bool(status)


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        (("--min", "category.acuracy=.5"), 2, "'category.acuracy' is no figure"),
        (("--max", "latency.total.p95"), 2, "is not FIGURE=VALUE"),
        (("--mode", "invented"), 2, "invented"),
        (("--compare", "kb.json"), 1, "kb.json is no report of 'appliance eval'"),
        (("--compare", "nowhere.json"), 2, "nowhere.json"),
        (("--desk",), 2, "--desk goes with neither"),
        (("--judge", "set.jsonl"), 2, "--judge measures pairs"),
    ],
    ids=lambda given: " ".join(given) if isinstance(given, tuple) else None,
)
def test_what_is_wrong_with_the_command_is_told_before_anything_is_measured(
    words: tuple[str, ...], status: int, says: str, desk: ApplianceProcess
) -> None:
    done = desk.cli(*ARGUMENTS, *words)
    assert (done.returncode, done.stdout) == (status, "")
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_figures_out_of_bounds_are_told_beside_the_report(
    desk: ApplianceProcess, saved: Card
) -> None:
    done = desk.cli(
        *(*ARGUMENTS, "--json", "--items", "--max", "escalation.recall=.5"),
        *("--min", "category.accuracy=.9", "--min", "answers.fact_recall=1.01"),
        *("--max", "anger.precision=1"),
    )
    assert done.returncode == 1
    assert [item["key"] for item in json.loads(done.stdout)["items"]] == [
        item["key"] for item in saved["items"]
    ]
    assert [line for line in done.stderr.splitlines() if line.startswith("error: ")] == [
        "error: answers.fact_recall is 1; at least 1.01 was asked for.",
        "error: escalation.recall is 1; at most 0.5 was asked for.",
        "error: anger.precision was not measured; at most 1 was asked for.",
    ]
    assert done.stderr.splitlines()[-1].startswith("hint: ")


def test_the_desk_is_measured_on_its_own_golden_set(prepared_home: Path) -> None:
    desk = ApplianceProcess(prepared_home)
    try:
        desk.cli_json("db", "upgrade")
        desk.cli_json("kb", "import", str(FAQS))
        done = desk.cli("eval", "--desk", "--no-model")
        assert (done.returncode, done.stdout) == (1, "")
        assert "appliance golden build" in done.stderr
        desk.cli_json("golden", "add", "Which cards do you take?", "--category", "Billing")
        card = desk.cli_json("eval", "--desk", "--no-model")
        assert card["run"]["set"] == "desk"
        assert card["category"]["by_source"] == {"added": {"accuracy": 1.0, "n": 1}}
        assert card["n"] == 1
    finally:
        desk.clean()


def test_the_judge_is_measured_on_pairs(desk: ApplianceProcess) -> None:
    passage = "A refund takes 14 days. Returns are free of charge within the country."
    pairs = [
        {"sentence": "A refund takes 14 days.", "supported": True, "kind": "copy"},
        {"sentence": "A refund takes 15 days.", "supported": False, "kind": "number"},
        # What is wrong with this pair is its label.
        {"sentence": "Bicycles can fly to the moon.", "supported": True, "kind": "mislabelled"},
    ]
    lines = [json.dumps(pair | {"passage": passage}) for pair in pairs]
    (desk.folder / "pairs.jsonl").write_text("\n".join(lines), encoding="utf-8")
    done = desk.cli(
        *("eval", "--judge", "pairs.jsonl", "--json", "--min", "judge.rejected.share=.98"),
        *("--min", "judge.kept.share=.9"),
    )
    card = json.loads(done.stdout)["judge"]
    assert (card["rejected"]["share"], card["kept"]["share"]) == (1.0, 0.5)
    assert done.returncode == 1
    assert "error: judge.kept.share is 0.5; at least 0.9 was asked for." in done.stderr
    told = desk.cli("eval", "--judge", "pairs.jsonl")
    assert told.returncode == 0, told.stderr
    assert "judge.rejected.by_kind.number.share" in told.stdout
    assert "Bicycles can fly" in told.stdout.split("rejected wrongly")[1]
