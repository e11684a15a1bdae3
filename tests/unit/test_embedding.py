"""One thread embeds; equal texts wait together, and nobody spoils it for the others."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.errors import WeightsError
from appliance.knowledge import embedding
from appliance.knowledge.embedding import (
    EncodingBridge,
    HashedEmbedder,
    SentenceTransformerEmbedder,
    Vectors,
    weights_fingerprint,
)
from tests.builders import settle

pytestmark = pytest.mark.anyio


class GatedEmbedder(HashedEmbedder):
    """Embeds when it may; fails for as long as it is told to."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.calls: list[list[str]] = []
        self.threads: set[int] = set()
        self.failing = False

    def encode(self, texts: Sequence[str]) -> Vectors:
        self.calls.append(list(texts))
        self.threads.add(threading.get_ident())
        assert self.gate.wait(5)
        if self.failing:
            raise RuntimeError("told to fail")
        return super().encode(texts)


@pytest.fixture
def embedder() -> GatedEmbedder:
    return GatedEmbedder()


@pytest.fixture
async def bridge(embedder: GatedEmbedder, anyio_backend: str) -> AsyncIterator[EncodingBridge]:
    bridge = EncodingBridge(embedder)
    yield bridge
    embedder.gate.set()
    bridge.close()


async def test_equal_texts_at_once_are_encoded_once(
    bridge: EncodingBridge, embedder: GatedEmbedder
) -> None:
    vectors = await asyncio.gather(*(bridge.encode_one("same") for _ in range(10)))
    assert embedder.calls == [["same"]]
    for vector in vectors:
        np.testing.assert_array_equal(vector, HashedEmbedder().encode(["same"])[0])


async def test_vector_and_tokens_of_a_text_come_from_one_run(
    bridge: EncodingBridge, embedder: GatedEmbedder
) -> None:
    tokens, vector, again = await asyncio.gather(
        bridge.tokens_of("same"), bridge.encode_one("same"), bridge.tokens_of("same")
    )
    assert tokens is again
    (wanted,), (kept,) = HashedEmbedder().encode_tokens(["same"])
    np.testing.assert_array_equal(vector, wanted)
    np.testing.assert_array_equal(tokens.directions, kept.directions)
    assert embedder.calls == [["same"]]


@pytest.mark.anyio
async def test_a_text_is_remembered(bridge: EncodingBridge, embedder: GatedEmbedder) -> None:
    await bridge.encode_one("same")
    await bridge.encode_one("other")
    await bridge.encode_one("same")
    assert embedder.calls == [["same"], ["other"]]


async def test_only_the_latest_texts_are_remembered(
    bridge: EncodingBridge, embedder: GatedEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedding, "MEMO_SIZE", 3)
    for text in ("a", "b", "c", "d"):
        await bridge.encode_one(text)
    embedder.calls.clear()
    for text in ("d", "c", "b", "a"):
        await bridge.encode_one(text)
    assert embedder.calls == [["a"]]


async def test_many_texts_at_once_all_get_their_own_vector(bridge: EncodingBridge) -> None:
    texts = [f"text {number}" for number in range(2 * embedding.MEMO_SIZE)]
    vectors = await asyncio.gather(*map(bridge.encode_one, texts))
    np.testing.assert_array_equal(np.stack(vectors), HashedEmbedder().encode(texts))


async def test_a_failed_encoding_is_not_remembered(
    bridge: EncodingBridge, embedder: GatedEmbedder
) -> None:
    embedder.failing = True
    failed = await asyncio.gather(
        *(bridge.encode_one("same") for _ in range(3)), return_exceptions=True
    )
    assert [type(error) for error in failed] == [RuntimeError] * 3
    assert embedder.calls == [["same"]]
    embedder.failing = False
    vector = await bridge.encode_one("same")
    assert np.linalg.norm(vector) == pytest.approx(1.0)
    assert embedder.calls == [["same"], ["same"]]


async def test_one_who_stops_waiting_does_not_cancel_the_other(
    bridge: EncodingBridge, embedder: GatedEmbedder
) -> None:
    embedder.gate.clear()
    first = asyncio.create_task(bridge.encode_one("same"))
    second = asyncio.create_task(bridge.encode_one("same"))
    await settle()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    embedder.gate.set()
    vector = await asyncio.wait_for(second, 2)
    np.testing.assert_array_equal(vector, HashedEmbedder().encode(["same"])[0])
    assert embedder.calls == [["same"]]


async def test_when_everybody_stopped_waiting_the_next_one_still_gets_it(
    bridge: EncodingBridge, embedder: GatedEmbedder
) -> None:
    embedder.gate.clear()
    waiting = asyncio.create_task(bridge.encode_one("same"))
    await settle()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    embedder.gate.set()
    vector = await asyncio.wait_for(bridge.encode_one("same"), 2)
    np.testing.assert_array_equal(vector, HashedEmbedder().encode(["same"])[0])


async def test_encoding_happens_in_one_thread_and_never_in_the_loops(
    bridge: EncodingBridge, embedder: GatedEmbedder
) -> None:
    await asyncio.gather(*(bridge.encode_one(str(n)) for n in range(20)), bridge.encode(["x", "y"]))
    await bridge.run(lambda: embedder.encode(["z"]))
    assert len(embedder.threads) == 1
    assert threading.get_ident() not in embedder.threads


async def test_the_loop_runs_on_while_a_text_is_encoded(
    bridge: EncodingBridge, embedder: GatedEmbedder
) -> None:
    embedder.gate.clear()
    waiting = asyncio.create_task(bridge.encode_one("slow"))
    await settle()
    assert not waiting.done()
    embedder.gate.set()
    await asyncio.wait_for(waiting, 2)


async def test_several_texts_come_back_in_their_order(bridge: EncodingBridge) -> None:
    texts = ["b", "a", "c c c"]
    np.testing.assert_array_equal(await bridge.encode(texts), HashedEmbedder().encode(texts))
    assert (await bridge.encode([])).shape == (0, HashedEmbedder.dimensions)


# --- the twin -------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.lists(st.text(max_size=40), max_size=5))
def test_the_twin_keeps_the_contract_of_an_embedder(texts: list[str]) -> None:
    twin = HashedEmbedder()
    rows = twin.encode(texts)
    assert rows.shape == (len(texts), twin.dimensions)
    assert rows.dtype == np.float32
    np.testing.assert_array_equal(rows, HashedEmbedder().encode(texts))
    lengths = np.linalg.norm(rows, axis=1)
    assert all(length == pytest.approx(1.0, abs=1e-5) or length == 0 for length in lengths)


def test_near_texts_of_the_twin_share_words() -> None:
    asked, near, far = HashedEmbedder().encode(
        ["reset my password", "how to reset a password", "opening hours on Monday"]
    )
    assert asked @ near > asked @ far


def test_a_folder_without_weights_is_refused_with_a_hint(tmp_path: Path) -> None:
    with pytest.raises(WeightsError) as error:
        SentenceTransformerEmbedder(tmp_path)
    assert str(tmp_path) in error.value.detail
    assert "APPLIANCE_EMBEDDINGS_DIR" in error.value.hint


# --- its name -------------------------------------------------------------------------------------


def make_folder(folder: Path) -> Path:
    folder.mkdir()
    for name in ("model.safetensors", "tokenizer.json", "vocab.txt", "config.json", "README.md"):
        (folder / name).write_text(f"content of {name}")
    return folder


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "vocab.txt"])
def test_the_fingerprint_changes_with_weights_and_tokenizer(tmp_path: Path, name: str) -> None:
    folder = make_folder(tmp_path / "model")
    before = weights_fingerprint(folder)
    (folder / "README.md").write_text("other words")
    assert weights_fingerprint(folder) == before
    (folder / name).write_text("other content")
    assert weights_fingerprint(folder) != before


def test_the_fingerprint_does_not_depend_on_where_the_folder_lies(tmp_path: Path) -> None:
    first, second = make_folder(tmp_path / "here"), make_folder(tmp_path / "there")
    assert weights_fingerprint(first) == weights_fingerprint(second)
