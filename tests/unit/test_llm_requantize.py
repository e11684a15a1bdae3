"""How a type is chosen, with a bench that answers at once."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
import pytest

from appliance.errors import ModelError, WeightsError
from appliance.llm.catalog import EMBEDDED, Catalog
from appliance.llm.engine import cpu, requantize
from appliance.llm.engine.cpu import Processor
from appliance.llm.engine.requantize import Bench, Choice, Served, choose
from appliance.llm.engine.trial import Verdict
from appliance.llm.templates import Template
from appliance.llm.weights import digest

ENTRY = Catalog.load().entry(EMBEDDED)
SHIPPED = Verdict(0.3, 0.4, -0.94, 15, 24)
FASTER = Verdict(0.2, 0.4, -0.94, 15, 24)
FASTEST = Verdict(0.1, 0.3, -0.94, 15, 24)


class FakeBench:
    """Makes files whose content is their type, and answers trials from a table."""

    def __init__(self, **verdicts: Verdict) -> None:
        self.verdicts = {"Q4_1": SHIPPED, **verdicts}
        self.made: list[str] = []
        self.measured: list[str] = []
        self.most_files = 0
        self.fails: set[str] = set()

    def quantize(self, source: Path, target: Path, file_type: str, *, threads: int) -> None:
        self.made.append(file_type)
        target.write_bytes(b"half")
        if file_type in self.fails:
            raise WeightsError(f"{source.name} could not be turned into {file_type}.")
        target.write_bytes(file_type.encode())
        self.most_files = max(self.most_files, len(list(target.parent.glob(f"{ENTRY.name}.*[ft]"))))

    def measure(self, path: Path, template: Template, *, threads: int) -> Verdict:
        file_type = "Q4_1" if path.name == ENTRY.file else path.read_text()
        self.measured.append(file_type)
        if file_type not in self.verdicts:
            raise ModelError(f"{path.name} gives no probabilities.")
        return self.verdicts[file_type]

    @property
    def bench(self) -> Bench:
        return Bench(self.quantize, self.measure)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "weights"


@pytest.fixture
def source(folder: Path) -> Served:
    folder.mkdir()
    path = folder / ENTRY.file
    path.write_bytes(b"as shipped")
    return Served(path, digest(path))


@pytest.fixture(params=["avx512_bf16", ""], ids=["bf16", "no bf16"])
def has_bf16(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    monkeypatch.setattr(cpu, "processor", lambda: Processor("A CPU", frozenset({request.param})))
    return bool(request.param)


@pytest.fixture
def processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "processor", lambda: Processor("A CPU", frozenset({"avx512_bf16"})))


def run(source: Served, folder: Path, fake: FakeBench) -> Served:
    return choose(ENTRY, source, folder, threads=2, report=lambda text: None, bench=fake.bench)


def record(folder: Path) -> Choice:
    return msgspec.json.decode((folder / f"{EMBEDDED}.requantized.json").read_bytes(), type=Choice)


def types(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*") if path.suffix in (".gguf", ".part"))


def test_serves_the_fastest_type_that_is_not_worse(
    has_bf16: bool, source: Served, folder: Path
) -> None:
    fake = FakeBench(Q8_0=FASTER, Q4_0=SHIPPED, BF16=FASTEST)
    served = run(source, folder, fake)
    best = "BF16" if has_bf16 else "Q8_0"
    assert served.path.read_text() == best
    assert served.sha256 == digest(served.path)
    assert fake.made == ["Q8_0", "Q4_0", "BF16"][: 3 if has_bf16 else 2]
    assert types(folder) == sorted([ENTRY.file, f"{EMBEDDED}.{best}.gguf"])
    assert fake.most_files <= 2


@pytest.mark.parametrize(
    ("worse", "why"),
    [
        (msgspec.structs.replace(FASTEST, likelihood=-0.951), "answers"),
        (msgspec.structs.replace(FASTEST, right=14), "labels"),
    ],
)
@pytest.mark.usefixtures("processor")
def test_a_fast_type_that_is_worse_is_not_served(
    source: Served, folder: Path, worse: Verdict, why: str
) -> None:
    served = run(source, folder, FakeBench(Q8_0=FASTER, Q4_0=worse, BF16=SHIPPED))
    assert served.path.read_text() == "Q8_0"
    refused = next(m for m in record(folder).measured if m.file_type == "Q4_0")
    assert refused.why_not.startswith(why)
    assert refused.verdict is not None


@pytest.mark.usefixtures("processor")
def test_a_fall_within_the_tolerance_is_rounding(source: Served, folder: Path) -> None:
    rounded = msgspec.structs.replace(FASTEST, likelihood=-0.949)
    assert run(
        source, folder, FakeBench(Q8_0=rounded, Q4_0=SHIPPED, BF16=SHIPPED)
    ).path.stem.endswith("Q8_0")


@pytest.mark.usefixtures("processor")
def test_the_shipped_file_stays_when_nothing_is_faster(source: Served, folder: Path) -> None:
    assert run(source, folder, FakeBench(Q8_0=SHIPPED, Q4_0=SHIPPED, BF16=SHIPPED)) == source
    assert types(folder) == [ENTRY.file]


@pytest.mark.usefixtures("processor")
def test_the_choice_is_remembered(source: Served, folder: Path) -> None:
    first = run(source, folder, FakeBench(Q8_0=FASTER, Q4_0=SHIPPED, BF16=FASTEST))
    again = FakeBench()
    assert run(source, folder, again) == first
    assert (again.made, again.measured) == ([], [])
    kept = record(folder)
    assert [m.file_type for m in kept.measured] == ["Q4_1", "Q8_0", "Q4_0", "BF16"]
    assert kept.key == requantize.Key(source.sha256, "A CPU", requantize.llamacpp.version())
    assert all(m.verdict is not None and m.seconds == m.verdict.seconds for m in kept.measured)


@pytest.mark.usefixtures("processor")
@pytest.mark.parametrize("change", ["cpu", "library", "source", "damaged", "gone", "unreadable"])
def test_it_is_measured_again_when_it_no_longer_holds(
    source: Served, folder: Path, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    verdicts = {"Q8_0": FASTER, "Q4_0": SHIPPED, "BF16": SHIPPED}
    served = run(source, folder, FakeBench(**verdicts))
    if change == "cpu":
        monkeypatch.setattr(cpu, "processor", lambda: Processor("Another CPU", frozenset()))
    elif change == "library":
        monkeypatch.setattr(requantize.llamacpp, "version", lambda: "9.9")
    elif change == "source":
        source.path.write_bytes(b"a newer package")
        source = Served(source.path, digest(source.path))
    elif change == "damaged":
        served.path.write_bytes(b"rotten")
    elif change == "gone":
        served.path.unlink()
    else:
        (folder / f"{EMBEDDED}.requantized.json").write_text("{")
    again = FakeBench(**verdicts)
    assert run(source, folder, again).path.read_text() == "Q8_0"
    assert again.measured[0] == "Q4_1"


@pytest.mark.usefixtures("processor")
def test_without_room_the_file_as_shipped_is_served(
    source: Served, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeBench(Q8_0=FASTER)
    full = shutil.disk_usage(folder)._replace(free=2 * source.path.stat().st_size)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: full)
    assert run(source, folder, fake) == source
    assert fake.made == []
    # Not remembered: the next start may find room.
    assert not (folder / f"{EMBEDDED}.requantized.json").exists()


@pytest.mark.usefixtures("processor")
def test_types_that_cannot_be_made_are_left_out(source: Served, folder: Path) -> None:
    fake = FakeBench(Q4_0=FASTER)
    fake.fails = {"Q8_0", "BF16"}
    assert run(source, folder, fake).path.read_text() == "Q4_0"
    assert {m.file_type for m in record(folder).measured if m.verdict is None} == {"Q8_0", "BF16"}
    assert types(folder) == sorted([ENTRY.file, f"{EMBEDDED}.Q4_0.gguf"])


@pytest.mark.usefixtures("processor")
def test_when_no_type_can_be_made_nothing_is_measured(source: Served, folder: Path) -> None:
    fake = FakeBench()
    fake.fails = {"Q8_0", "Q4_0", "BF16"}
    assert run(source, folder, fake) == source
    assert fake.measured == []
    assert types(folder) == [ENTRY.file]
    assert not (folder / f"{EMBEDDED}.requantized.json").exists()


@pytest.mark.usefixtures("processor")
def test_types_that_do_not_compute_are_left_out(source: Served, folder: Path) -> None:
    assert run(source, folder, FakeBench(Q8_0=FASTER)).path.read_text() == "Q8_0"
    refused = [m.why_not for m in record(folder).measured if m.verdict is None]
    assert refused == [f"{EMBEDDED}.{t}.gguf gives no probabilities." for t in ("Q4_0", "BF16")]
    assert types(folder) == sorted([ENTRY.file, f"{EMBEDDED}.Q8_0.gguf"])


@pytest.mark.usefixtures("processor")
def test_what_an_interrupted_start_left_is_removed(source: Served, folder: Path) -> None:
    for name in (f"{EMBEDDED}.BF16.gguf", f"{EMBEDDED}.Q8_0.part"):
        (folder / name).write_bytes(b"left")
    run(source, folder, FakeBench(Q8_0=SHIPPED, Q4_0=SHIPPED, BF16=SHIPPED))
    assert types(folder) == [ENTRY.file]


@pytest.mark.usefixtures("processor")
def test_a_folder_that_cannot_be_written_is_no_reason_to_fail(
    source: Served, tmp_path: Path
) -> None:
    blocked = tmp_path / "file"
    blocked.write_bytes(b"")
    assert run(source, blocked / "weights", FakeBench(Q8_0=FASTER)) == source


def test_this_machines_processor_has_a_name() -> None:
    found = cpu.processor()
    assert found.name
    assert all(" " not in flag for flag in found.flags)
