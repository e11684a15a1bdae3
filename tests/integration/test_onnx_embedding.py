"""ONNX Runtime gives the vectors of the model itself, without torch, and whatever goes wrong with
its graph costs no start."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper
from structlog.testing import capture_logs

from appliance.domain.passage import Article
from appliance.errors import WeightsError
from appliance.knowledge import index as indexes
from appliance.knowledge import onnx_graph
from appliance.knowledge.embedding import (
    Embedder,
    HashedEmbedder,
    SentenceTransformerEmbedder,
    Vectors,
    packaged_model,
)
from appliance.knowledge.onnx_embedding import BATCH, OnnxEmbedder
from appliance.knowledge.onnx_export import COSINE_MIN, DIFFERENCE_MAX, PROBES, check
from appliance.knowledge.onnx_graph import GraphStore, load_embedder
from appliance.knowledge.tokens import Tokens, unit
from appliance.operations.doctor import Finding, examine
from appliance.settings import HOME, load_settings
from tests.appliance_process import clean_environment, until

pytestmark = pytest.mark.timeout(600)

EXAMPLES = [
    json.loads(line)["text"]
    for line in (HOME / "kb" / "examples.jsonl").read_text(encoding="utf-8").splitlines()
]
ODD = [
    "x",
    "",
    "\u200b\u200b",
    "\r\n\r\n",
    "O'Brien's café — naïve coöperation, 50 % off; №7 ½ ² ℡",
    "Γιατί χρεώθηκα δύο φορές; מדוע חויבתי פעמיים? 두 번 청구된 이유는?",
    "🧑🏽‍💻🇩🇪🏳️‍🌈 ok?",
    "a\u0300\u0301\u0302 zalgo",
    "\U0001f600" * 400,
    "My order 10023 arrived broken and nobody answers my mails, please help. " * 80,
    "donaudampfschifffahrtsgesellschaftskapitaenswitwe" * 9,
    "word" + " word" * 253,
    "word" + " word" * 254,
    "[MASK] is not [MASK]",
]
"""Other texts than those that the export looks at."""

LOAD = """
import json, sys
from pathlib import Path
from appliance.settings import enforce_offline
enforce_offline()
from appliance.logs import configure_logs
configure_logs("info", process="test")
from appliance.knowledge.onnx_graph import load_embedder
folder, store, limit = sys.argv[1:]
if int(limit):
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
embedder = load_embedder(Path(folder), Path(store))
vector = embedder.encode(["How do I reset my password?"])[0]
loaded = [name for name in ("torch", "transformers", "sentence_transformers", "onnx", "sklearn")
          if name in sys.modules]
print(json.dumps({"runtime": type(embedder).__name__, "fingerprint": embedder.fingerprint,
                  "vector": vector.tolist(), "loaded": loaded}))
"""


class Loading:
    """A process that loads an embedder and encodes one text with it."""

    def __init__(self, store: Path, *, folder: Path | None = None, largest_file: int = 0) -> None:
        command = [sys.executable, "-c", LOAD, str(folder or packaged_model()), str(store)]
        self.process = subprocess.Popen(
            [*command, str(largest_file)],
            env=clean_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def result(self) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """What it printed, and the lines of its log."""
        out, log = self.process.communicate(timeout=300)
        assert self.process.returncode == 0, log
        lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
        return json.loads(out.splitlines()[-1]), lines


@dataclass(frozen=True)
class Prepared:
    """A store after a machine's first start, which two processes went through at once."""

    store: Path
    results: list[dict[str, Any]]
    lines: list[dict[str, Any]]

    @property
    def graphs(self) -> GraphStore:
        return GraphStore(packaged_model(), self.store)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    store = tmp_path_factory.mktemp("data") / "embeddings"
    ended = [loading.result() for loading in [Loading(store), Loading(store)]]
    return Prepared(store, [result for result, _ in ended], [x for _, log in ended for x in log])


@pytest.fixture(scope="module")
def onnx_embedder(prepared: Prepared) -> OnnxEmbedder:
    found = load_embedder(packaged_model(), prepared.store)
    assert isinstance(found, OnnxEmbedder)
    return found


@pytest.fixture(scope="module")
def torch_embedder() -> SentenceTransformerEmbedder:
    return SentenceTransformerEmbedder(packaged_model())


@pytest.fixture(scope="module", params=["onnx", "torch"])
def embedder(request: pytest.FixtureRequest) -> Embedder:
    found: Embedder = request.getfixturevalue(f"{request.param}_embedder")
    return found


@pytest.fixture
def store(prepared: Prepared, tmp_path: Path) -> Path:
    """A copy of the prepared store, to be broken."""
    return Path(shutil.copytree(prepared.store, tmp_path / "embeddings"))


# --- the contract of an embedder ------------------------------------------------------------------


def test_rows_are_unit_vectors_in_the_order_of_the_texts(embedder: Embedder) -> None:
    texts = [*ODD, *EXAMPLES[: 2 * BATCH]]
    rows = embedder.encode(texts)
    assert rows.shape == (len(texts), embedder.dimensions)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1.0, atol=1e-5)
    np.testing.assert_allclose(rows[::-1], embedder.encode(texts[::-1]), atol=1e-5)


def test_a_text_alone_has_the_vector_it_has_among_others(embedder: Embedder) -> None:
    texts = [*ODD, *EXAMPLES[:20]]
    alone = np.concatenate([embedder.encode([text]) for text in texts])
    np.testing.assert_allclose(alone, embedder.encode(texts), atol=1e-5)


def test_no_text_has_no_vector(embedder: Embedder) -> None:
    assert embedder.encode([]).shape == (0, embedder.dimensions)


def test_the_same_text_has_the_same_vector(embedder: Embedder) -> None:
    np.testing.assert_array_equal(embedder.encode(["refund"]), embedder.encode(["refund"]))


def test_tokens_come_with_the_same_vectors_and_nothing_that_frames_a_text(
    embedder: Embedder,
) -> None:
    rows, tokens = embedder.encode_tokens(ODD)
    np.testing.assert_allclose(rows, embedder.encode(ODD), atol=1e-5)
    assert len(tokens) == len(ODD)
    for text in tokens:
        assert text.directions.shape == (len(text.ids), embedder.dimensions)
    (one,) = embedder.encode_tokens(["x"])[1]
    assert len(one.ids) == 1
    assert one.ids.tolist() == tokens[ODD.index("x")].ids.tolist()
    assert len(tokens[ODD.index("")].ids) == 0
    empty, none = embedder.encode_tokens([])
    assert empty.shape == (0, embedder.dimensions)
    assert none == []


# --- the same vectors -----------------------------------------------------------------------------


def assert_same(found: Vectors, wanted: Vectors) -> None:
    assert float(np.einsum("ij,ij->i", found, wanted).min()) >= COSINE_MIN
    assert float(np.abs(found - wanted).max()) <= DIFFERENCE_MAX


def test_both_runtimes_bear_one_name(
    onnx_embedder: OnnxEmbedder, torch_embedder: SentenceTransformerEmbedder
) -> None:
    assert onnx_embedder.fingerprint == torch_embedder.fingerprint
    assert onnx_embedder.dimensions == torch_embedder.dimensions == 384


def test_both_runtimes_give_one_vector_for_what_customers_write(
    onnx_embedder: OnnxEmbedder, torch_embedder: SentenceTransformerEmbedder
) -> None:
    assert not set(EXAMPLES) & set(PROBES) - {"How do I reset my password?"}
    texts = EXAMPLES[::20]
    assert_same(onnx_embedder.encode(texts), torch_embedder.encode(texts))


def test_both_runtimes_give_one_vector_for_odd_and_long_texts(
    onnx_embedder: OnnxEmbedder, torch_embedder: SentenceTransformerEmbedder
) -> None:
    assert not set(ODD) & set(PROBES) - {""}
    assert_same(onnx_embedder.encode(ODD), torch_embedder.encode(ODD))


def test_both_runtimes_give_the_same_tokens(
    onnx_embedder: OnnxEmbedder, torch_embedder: SentenceTransformerEmbedder
) -> None:
    texts = [*ODD, *EXAMPLES[::40]]
    found, wanted = (each.encode_tokens(texts)[1] for each in (onnx_embedder, torch_embedder))
    for own, other in zip(found, wanted, strict=True):
        assert own.ids.tolist() == other.ids.tolist()
        cosines = np.einsum("ij,ij->i", unit(own.directions), unit(other.directions))
        assert (cosines >= COSINE_MIN).all()


def test_tokens_find_what_vectors_alone_miss(onnx_embedder: OnnxEmbedder) -> None:
    """The starter knowledge base and what its golden set asks."""
    articles = [
        Article(str(row["id"]), row["question"], row["answer"], row["category"])
        for row in json.loads((HOME / "kb" / "faqs.json").read_text(encoding="utf-8"))["faqs"]
    ]
    index = indexes.build(onnx_embedder, "digest", articles)
    golden = (HOME / "kb" / "golden.jsonl").read_text(encoding="utf-8").splitlines()
    asked = [row for row in map(json.loads, golden) if row.get("faq")]
    rows, tokens = onnx_embedder.encode_tokens([row["text"] for row in asked])
    first = {"vectors": 0, "both": 0}
    third = 0
    for row, vector, own in zip(asked, rows, tokens, strict=True):
        (plain, *_) = index.search(row["text"], vector, limit=3)
        found = index.search(row["text"], vector, limit=3, tokens=own)
        first["vectors"] += plain.article.id == str(row["faq"])
        first["both"] += found[0].article.id == str(row["faq"])
        third += str(row["faq"]) in [passage.article.id for passage in found]
    assert first["both"] > first["vectors"]
    assert third / len(asked) >= 0.95


@settings(deadline=None, max_examples=15)
@given(
    texts=st.lists(
        st.text(st.characters(exclude_categories=["Cs"]), max_size=200), min_size=1, max_size=4
    )
)
def test_both_runtimes_give_one_vector_for_anything(
    onnx_embedder: OnnxEmbedder, torch_embedder: SentenceTransformerEmbedder, texts: list[str]
) -> None:
    assert_same(onnx_embedder.encode(texts), torch_embedder.encode(texts))


def test_an_index_made_with_one_runtime_is_good_with_the_other(
    onnx_embedder: OnnxEmbedder, torch_embedder: SentenceTransformerEmbedder, tmp_path: Path
) -> None:
    articles = [
        Article(str(row["id"]), row["question"], row["answer"], row["category"])
        for row in json.loads((HOME / "kb" / "faqs.json").read_text(encoding="utf-8"))["faqs"][::3]
    ]
    made = indexes.build(torch_embedder, "digest", articles)
    indexes.save(made, tmp_path)
    loaded = indexes.load(tmp_path, onnx_embedder, "digest", articles)
    assert loaded is not None
    for text in EXAMPLES[::50]:
        wanted = made.search(text, torch_embedder.encode([text])[0], limit=3)
        found = loaded.search(text, onnx_embedder.encode([text])[0], limit=3)
        assert [p.article.id for p in found] == [p.article.id for p in wanted]
        assert [p.score for p in found] == pytest.approx([p.score for p in wanted], abs=2e-4)


# --- a machine's first start, and later ones ------------------------------------------------------


def test_processes_that_start_at_once_make_one_graph(prepared: Prepared) -> None:
    assert [result["runtime"] for result in prepared.results] == ["OnnxEmbedder"] * 2
    assert [x["event"] for x in prepared.lines] == ["embedding_graph_made"]
    graph = prepared.graphs.graph
    assert {file.name for file in prepared.store.iterdir()} == {
        graph.name,
        graph.with_suffix(".json").name,
        "lock",
    }
    assert prepared.store.stat().st_mode & 0o077 == 0
    assert prepared.graphs.is_whole()


def test_not_even_the_start_that_makes_the_graph_loads_torch(prepared: Prepared) -> None:
    assert [result["loaded"] for result in prepared.results] == [[], []]


def test_a_later_start_encodes_without_torch(
    prepared: Prepared, torch_embedder: SentenceTransformerEmbedder
) -> None:
    result, lines = Loading(prepared.store).result()
    assert result["runtime"] == "OnnxEmbedder"
    assert result["loaded"] == []
    assert result["fingerprint"] == torch_embedder.fingerprint
    assert lines == []
    wanted = torch_embedder.encode(["How do I reset my password?"])
    assert_same(np.array([result["vector"]], dtype=np.float32), wanted)


# --- what is no longer good -----------------------------------------------------------------------


def test_a_changed_byte_is_noticed(store: Path) -> None:
    graphs = GraphStore(packaged_model(), store)
    assert graphs.is_whole()
    with graphs.graph.open("r+b") as file:
        file.seek(50_000_000)
        byte = file.read(1)
        file.seek(50_000_000)
        file.write(bytes([byte[0] ^ 1]))
    assert not graphs.is_whole()


@pytest.mark.parametrize("note", [b"", b"{", b"[]", b"null", b'"sha256"', b'{"made_from": "else"}'])
def test_a_graph_without_its_note_does_not_count(store: Path, note: bytes) -> None:
    graphs = GraphStore(packaged_model(), store)
    graphs.graph.with_suffix(".json").write_bytes(note)
    assert graphs.note() == {}
    assert not graphs.is_whole()
    graphs.graph.with_suffix(".json").unlink()
    assert not graphs.is_whole()


def test_other_programs_or_another_layout_need_a_new_graph(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_graph, "LAYOUT", "another")
    assert not GraphStore(packaged_model(), store).is_whole()
    monkeypatch.undo()
    assert GraphStore(packaged_model(), store).is_whole()
    monkeypatch.setattr(onnx_graph, "version", lambda name: "0.0.0")
    assert not GraphStore(packaged_model(), store).is_whole()


def copy_of_model(folder: Path) -> Path:
    """The packaged model in a folder of its own, whose configuration may be changed."""
    shutil.copytree(packaged_model(), folder, copy_function=shutil.copyfile)
    return folder


def test_another_pooling_needs_a_new_graph(store: Path, tmp_path: Path) -> None:
    """It lies inside the graph, and the fingerprint does not know it."""
    folder = copy_of_model(tmp_path / "model")
    assert GraphStore(folder, store).is_whole()
    pooling = folder / "1_Pooling" / "config.json"
    changed = json.loads(pooling.read_text()) | {"pooling_mode_cls_token": True}
    pooling.write_text(json.dumps(changed | {"pooling_mode_mean_tokens": False}))
    assert not GraphStore(folder, store).is_whole()


def test_what_is_damaged_is_made_again_and_what_a_crash_left_goes(
    store: Path, onnx_embedder: OnnxEmbedder
) -> None:
    graphs = GraphStore(packaged_model(), store)
    os.truncate(graphs.graph, 1000)
    leftovers = [graphs.graph.with_suffix(".part"), store / f"{'0' * 64}.onnx"]
    for left in leftovers:
        left.write_bytes(b"half a graph")
    with capture_logs() as lines:
        again = load_embedder(packaged_model(), store)
    assert isinstance(again, OnnxEmbedder)
    assert [line["event"] for line in lines] == ["embedding_graph_unfit", "embedding_graph_made"]
    assert graphs.is_whole()
    assert not any(left.exists() for left in leftovers)
    np.testing.assert_allclose(again.encode(ODD), onnx_embedder.encode(ODD), atol=1e-6)


# --- what goes wrong ------------------------------------------------------------------------------


def reasons(lines: Any) -> list[str]:
    """Why the model itself was taken instead of a graph."""
    return [line["reason"] for line in lines if line["event"] == "embedding_without_onnx"]


def test_a_graph_that_gives_other_vectors_is_refused(
    prepared: Prepared, torch_embedder: SentenceTransformerEmbedder, tmp_path: Path
) -> None:
    model = onnx.load(prepared.graphs.graph)
    for weights in model.graph.initializer:
        values = numpy_helper.to_array(weights)
        if values.ndim == 2 and values.shape[0] > 10_000:
            worn = np.array(values)
            worn[:, 0] += 0.3  # one component of every word
            weights.CopyFrom(numpy_helper.from_array(worn, weights.name))
    wrong = tmp_path / "wrong.onnx"
    onnx.save(model, wrong)
    twisted = OnnxEmbedder(wrong, packaged_model(), torch_embedder.fingerprint)
    with pytest.raises(WeightsError, match="has cosine"):
        check(torch_embedder, twisted, EXAMPLES[:5])


class Altered(HashedEmbedder):
    """Gives the twin's vectors after a change."""

    def __init__(self, how: str) -> None:
        self.how = how

    def encode(self, texts: Any) -> Vectors:
        rows = super().encode(texts)
        if self.how == "nan":
            rows[-1] = np.nan
        if self.how == "longer":
            rows *= 1.01
        if self.how == "narrower":
            return rows[:, :-1]
        if self.how == "depends on its batch" and len(texts) > 1:
            rows[0] = rows[-1]
        return rows

    def encode_tokens(self, texts: Any) -> tuple[Vectors, list[Tokens]]:
        rows, tokens = super().encode_tokens(texts)
        if self.how == "other tokens":
            tokens[-1] = Tokens(tokens[-1].ids[:-1], tokens[-1].directions[:-1])
        if self.how == "turned tokens":
            tokens[0] = Tokens(tokens[0].ids, np.roll(tokens[0].directions, 1, axis=1))
        return rows, tokens


@pytest.mark.parametrize(
    "how",
    [
        "nan",
        "longer",
        "narrower",
        "depends on its batch",
        "other tokens",
        "turned tokens",
    ],
)
def test_the_check_notices(how: str) -> None:
    texts = ["reset my password", "refund an invoice", "opening hours"]
    check(HashedEmbedder(), HashedEmbedder(), texts)
    with pytest.raises(WeightsError):
        check(HashedEmbedder(), Altered(how), texts)


def test_a_model_whose_vectors_no_graph_keeps_runs_on_torch_and_is_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This one puts words before every text, which the graph's tokenizer does not."""
    folder, store = copy_of_model(tmp_path / "model"), tmp_path / "embeddings"
    (folder / "config_sentence_transformers.json").write_text(
        json.dumps({"prompts": {"ask": "question: "}, "default_prompt_name": "ask"})
    )
    with capture_logs() as lines:
        found = load_embedder(folder, store)
    assert isinstance(found, SentenceTransformerEmbedder)
    (reason,) = reasons(lines)
    assert "refused" in reason
    assert "cosine" in reason
    assert list(store.glob("*.onnx")) == list(store.glob("*.part")) == []
    # Another start does not try again: it would have no time to.
    monkeypatch.setattr(onnx_graph, "EXPORT_SECONDS", 0.0)
    with pytest.raises(WeightsError, match="refused"):
        GraphStore(folder, store).prepare()
    seen = finding(tmp_path, folder)
    assert seen.state == "warn"
    assert "cosine" in seen.detail
    assert seen.hint


def test_a_full_disk_costs_speed_and_not_the_start(
    tmp_path: Path, torch_embedder: SentenceTransformerEmbedder
) -> None:
    store = tmp_path / "embeddings"
    result, lines = Loading(store, largest_file=20_000_000).result()
    assert result["runtime"] == "SentenceTransformerEmbedder"
    assert result["fingerprint"] == torch_embedder.fingerprint
    assert len(reasons(lines)) == 1
    # It may have room next time.
    assert GraphStore(packaged_model(), store).note() == {}
    assert [file.name for file in store.iterdir()] == ["lock"]


def test_a_store_that_cannot_be_made_costs_speed_and_not_the_start(tmp_path: Path) -> None:
    (tmp_path / "embeddings").write_text("a file where the folder should be")
    with capture_logs() as lines:
        found = load_embedder(packaged_model(), tmp_path / "embeddings")
    assert isinstance(found, SentenceTransformerEmbedder)
    assert len(reasons(lines)) == 1


def test_an_export_that_takes_too_long_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_graph, "EXPORT_SECONDS", 0.2)
    graphs = GraphStore(packaged_model(), tmp_path / "embeddings")
    with pytest.raises(WeightsError, match="took over"):
        graphs.prepare()
    assert exporting(graphs) == []
    assert graphs.note() == {}


def test_a_disk_that_is_nearly_full_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_graph, "SPARE_BYTES", 2**60)
    graphs = GraphStore(packaged_model(), tmp_path / "embeddings")
    with pytest.raises(WeightsError, match="are free"):
        graphs.prepare()
    assert [file.name for file in graphs.graph.parent.iterdir()] == ["lock"]


def test_a_folder_without_a_model_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="holds no sentence-transformers model"):
        load_embedder(tmp_path, tmp_path / "embeddings")


def exporting(graphs: GraphStore) -> list[int]:
    """Ids of the processes that export into this store."""
    target = os.fsencode(graphs.graph.with_suffix(".part"))
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                command = (folder / "cmdline").read_bytes().split(b"\0")
            except OSError:  # it ended while we looked
                continue
            if target in command and b"appliance.knowledge.onnx_export" in command:
                found.append(int(folder.name))
    return found


@pytest.fixture
def killed(tmp_path: Path) -> Iterator[GraphStore]:
    """A store whose maker was killed while the export ran."""
    store = tmp_path / "embeddings"
    graphs = GraphStore(packaged_model(), store)
    loading = Loading(store)
    (child,) = until(lambda: exporting(graphs), "an export")
    try:
        # By then it has asked to die with its parent.
        until(lambda: "libtorch" in Path(f"/proc/{child}/maps").read_text(), "torch in the export")
        loading.process.send_signal(signal.SIGKILL)
        loading.process.communicate()
        yield graphs
    finally:
        for left in exporting(graphs):
            os.kill(left, signal.SIGKILL)


def test_the_export_dies_with_who_asked_for_it(killed: GraphStore) -> None:
    until(lambda: exporting(killed) == [], "the end of the export", patience=10.0)
    assert killed.note() == {}
    assert not killed.is_whole()


# --- what the operator sees -----------------------------------------------------------------------


def finding(data_dir: Path, folder: Path | None = None) -> Finding:
    """What the doctor says of the embeddings, with the store at ``data_dir / "embeddings"``."""
    chosen = load_settings(data_dir=data_dir, embeddings_dir=folder, runtime_dir=data_dir / "run")
    (found,) = (f for f in asyncio.run(examine(chosen)) if f.what == "embeddings")
    return found


def test_the_doctor_tells_whether_the_graph_is_there(prepared: Prepared, tmp_path: Path) -> None:
    ready = finding(prepared.store.parent)
    assert ready.state == "ok"
    assert ready.detail.endswith("ONNX graph ready")
    fresh = finding(tmp_path)
    assert fresh.state == "ok"
    assert "next start" in fresh.detail
    assert not (tmp_path / "embeddings").exists()
