"""The vector index: always of the present articles, honest about order, cheap to renew."""

from __future__ import annotations

import asyncio
import hashlib
import json
import shutil
import tempfile
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.domain.passage import Article
from appliance.domain.policy import CATEGORIES, CATEGORY_HINT, TERMS_WEIGHT
from appliance.domain.text import sentences
from appliance.knowledge import index as indexes
from appliance.knowledge.base import KnowledgeBase
from appliance.knowledge.embedding import EncodingBridge, HashedEmbedder, Vectors
from appliance.knowledge.index import KnowledgeIndex, build, load, save
from appliance.knowledge.terms import Terms
from tests.builders import CRASH, HOURS, PASSWORD, REFUND, SMALL_BASE

ROWS = sum(2 + len(sentences(article.answer)) for article in SMALL_BASE)


class CountingEmbedder(HashedEmbedder):
    """Remembers what it embedded."""

    def __init__(self, fingerprint: str = "counting-1") -> None:
        self.fingerprint = fingerprint  # type: ignore[misc]
        self.texts: list[str] = []

    def encode(self, texts: Sequence[str]) -> Vectors:
        self.texts += texts
        return super().encode(texts)


class Source:
    """Articles that a test may change."""

    def __init__(self, *articles: Article) -> None:
        self.now = articles
        self.reads = 0

    async def digest(self) -> str:
        return repr(self.now)

    async def articles(self) -> tuple[str, Sequence[Article]]:
        self.reads += 1
        return repr(self.now), self.now


@pytest.fixture
def embedder() -> CountingEmbedder:
    return CountingEmbedder()


@pytest.fixture
def whole(embedder: CountingEmbedder) -> KnowledgeIndex:
    return build(embedder, "d1", SMALL_BASE)


def look(
    index: KnowledgeIndex, text: str, *, limit: int = 5, category: str | None = None
) -> list[tuple[str, float]]:
    vector = HashedEmbedder().encode([text])[0]
    found = index.search(text, vector, limit=limit, category=category)
    return [(p.article.id, p.score) for p in found]


# --- searching ------------------------------------------------------------------------------------


@pytest.mark.parametrize("article", SMALL_BASE, ids=[a.question for a in SMALL_BASE])
def test_a_question_finds_its_own_article_first(whole: KnowledgeIndex, article: Article) -> None:
    assert look(whole, article.question)[0][0] == article.id


def test_the_nearest_sentence_is_named(whole: KnowledgeIndex) -> None:
    wanted = sentences(REFUND.answer)[1]
    (best, *_) = whole.search(wanted, HashedEmbedder().encode([wanted])[0], limit=1)
    assert (best.article, best.nearest) == (REFUND, wanted)


def test_an_article_with_the_querys_rare_words_gains_and_one_without_does_not(
    embedder: CountingEmbedder,
) -> None:
    codes = [
        Article(
            str(n), f"What does {code} mean?", f"{code} means that a part is worn.", "Technical"
        )
        for n, code in enumerate(("E-11", "E-12", "E-13"))
    ]
    index = build(embedder, "d", codes)
    vector = embedder.encode(["screen"])[0]
    plain = {p.article.id: p.score for p in index.search("", vector, limit=3)}
    worded = {p.article.id: p.score for p in index.search("E-12 on screen", vector, limit=3)}
    assert worded["1"] > plain["1"]
    assert worded["1"] - plain["1"] <= TERMS_WEIGHT.value
    assert max(worded, key=lambda each: worded[each]) == "1"


def test_terms_count_rare_words_more_and_a_text_without_any_counts_nothing() -> None:
    terms = Terms(["the pump is worn", "the pump leaks", "the valve leaks"])
    assert terms.coverage("how do I").tolist() == [0, 0, 0]
    assert terms.coverage("valve").tolist() == [0, 0, 1]
    pump, both, other = terms.coverage("pump valve").tolist()
    assert pump == both < other < 1


def test_a_score_is_the_mean_of_the_article_and_its_nearest_sentence(
    whole: KnowledgeIndex,
) -> None:
    vector = HashedEmbedder().encode(["monthly renewals refund"])[0]
    (best, *_) = whole.search("", vector, limit=1)
    text = f"{best.article.question} {best.article.answer}"
    all_rows = HashedEmbedder().encode([text, *sentences(best.article.answer)])
    cosines = all_rows @ vector
    assert best.score == pytest.approx((cosines[0] + cosines[1:].max()) / 2, abs=1e-4)


QUERIES = st.lists(
    st.sampled_from(
        ["reset", "password", "refund", "crash", "export", "hours", "support", "app", "the"]
    ),
    max_size=6,
).map(" ".join)
BUILT = build(HashedEmbedder(), "d", SMALL_BASE)


@settings(deadline=None)
@given(text=QUERIES, limit=st.integers(-1, 9))
def test_scores_are_cosines_sorted_and_no_article_comes_twice(text: str, limit: int) -> None:
    found = look(BUILT, text, limit=limit)
    scores = [score for _, score in found]
    assert scores == sorted(scores, reverse=True)
    assert all(-1.0001 <= score <= 1.0001 for score in scores)
    assert len({article for article, _ in found}) == len(found) == max(0, min(limit, 4))


@settings(deadline=None)
@given(text=QUERIES, category=st.sampled_from([*CATEGORIES, "Nonsense", None]))
def test_a_category_hint_hides_nothing_and_moves_near_ties_only(
    text: str, category: str | None
) -> None:
    plain = dict(look(BUILT, text))
    hinted = look(BUILT, text, category=category)
    assert {article for article, _ in hinted} == set(plain)
    scores = [score for _, score in hinted]
    assert scores == sorted(scores, reverse=True), "what is reported is what decided"
    for article, score in hinted:
        assert 0 <= score - plain[article] <= CATEGORY_HINT + 1e-6
    for (above, _), (below, _) in pairwise(hinted):
        assert plain[above] >= plain[below] - CATEGORY_HINT - 1e-6


def test_a_hint_decides_between_equals() -> None:
    twins = [Article(c, "How do I start?", "Press the key.", c) for c in CATEGORIES]
    index = build(HashedEmbedder(), "d", twins)
    for category in CATEGORIES:
        assert look(index, "How do I start?", category=category)[0][0] == category


@pytest.mark.parametrize("limit", [3, 5])
def test_one_long_article_does_not_crowd_out_the_others(limit: int) -> None:
    """At least three passages are reported where there are three articles, whatever they look
    like."""
    chapters = " ".join(f"Reset the password in chapter {n}." for n in range(200))
    index = build(
        HashedEmbedder(), "d", [Article("long", "Handbook", chapters, "Account"), *SMALL_BASE]
    )
    assert len(look(index, "Reset the password in chapter 7", limit=limit)) == limit


def test_articles_vote_for_their_categories(whole: KnowledgeIndex) -> None:
    votes = whole.categories(
        "refund of a new subscription", HashedEmbedder().encode(["refund of a new subscription"])[0]
    )
    assert sum(votes.values()) == pytest.approx(1.0)
    assert max(votes, key=lambda category: votes[category]) == "Billing"
    assert set(votes) <= set(CATEGORIES)


def test_an_empty_knowledge_base_finds_nothing(tmp_path: Path) -> None:
    embedder = CountingEmbedder()
    empty = build(embedder, "d0", [])
    assert look(empty, "anything") == []
    assert empty.categories("anything", HashedEmbedder().encode(["anything"])[0]) == {}
    assert embedder.texts == []
    save(empty, tmp_path)
    loaded = load(tmp_path, embedder, "d0", [])
    assert loaded is not None
    assert look(loaded, "anything") == []


@pytest.mark.parametrize("text", ["", "\u00bf?", "🙂"])
def test_a_query_without_words_is_searched_all_the_same(whole: KnowledgeIndex, text: str) -> None:
    assert len(look(whole, text)) == len(SMALL_BASE)


# --- building again -------------------------------------------------------------------------------


def test_only_what_changed_is_embedded_again(
    embedder: CountingEmbedder, whole: KnowledgeIndex
) -> None:
    assert len(embedder.texts) == ROWS
    embedder.texts.clear()
    changed = replace(HOURS, answer=f"{HOURS.answer} Live chat works on Saturdays.")
    rebuilt = build(embedder, "d2", [*SMALL_BASE[:3], changed], known=whole)
    assert sorted(embedder.texts) == sorted(
        [f"{changed.question} {changed.answer}", "Live chat works on Saturdays."]
    )
    fresh = build(HashedEmbedder(), "d2", [*SMALL_BASE[:3], changed])
    np.testing.assert_array_equal(rebuilt.rows, fresh.rows)
    np.testing.assert_array_equal(rebuilt.tokens.records, fresh.tokens.records)
    assert rebuilt.tokens.frequencies == fresh.tokens.frequencies


def test_a_new_order_embeds_nothing(embedder: CountingEmbedder, whole: KnowledgeIndex) -> None:
    embedder.texts.clear()
    turned = build(embedder, "d2", SMALL_BASE[::-1], known=whole)
    assert embedder.texts == []
    assert look(turned, REFUND.question)[0][0] == REFUND.id


def test_a_text_that_occurs_twice_is_embedded_once(embedder: CountingEmbedder) -> None:
    build(embedder, "d", [PASSWORD, replace(PASSWORD, id="copy")])
    assert len(embedder.texts) == len(set(embedder.texts))


# --- saved ----------------------------------------------------------------------------------------


def test_what_was_saved_is_loaded_without_embedding(
    embedder: CountingEmbedder, whole: KnowledgeIndex, tmp_path: Path
) -> None:
    save(whole, tmp_path / "index")
    embedder.texts.clear()
    loaded = load(tmp_path / "index", embedder, "d1", SMALL_BASE)
    assert loaded is not None
    assert embedder.texts == []
    for text in ("refund", "crash on export", "password link"):
        assert look(loaded, text) == look(whole, text)


@pytest.mark.parametrize("change", ["articles", "model", "layout"])
def test_an_index_of_something_else_is_not_loaded(
    change: str, whole: KnowledgeIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(whole, tmp_path)
    digest, embedder = "d1", CountingEmbedder()
    if change == "articles":
        digest = "d2"
    elif change == "model":
        embedder = CountingEmbedder("counting-2")
    else:
        monkeypatch.setattr(indexes, "LAYOUT", "article+sentences/2")
    assert load(tmp_path, embedder, digest, SMALL_BASE) is None


def flip(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :]


DAMAGES: dict[str, tuple[str, Any]] = {
    "index cut short": ("index.faiss", lambda content: content[:-8]),
    "index empty": ("index.faiss", lambda content: b""),
    "index with a flipped byte": ("index.faiss", flip),
    "tokens cut short": ("tokens.bin", lambda content: content[:-264]),
    "tokens empty": ("tokens.bin", lambda content: b""),
    "tokens with a flipped byte": ("tokens.bin", flip),
    "index is something else": ("index.faiss", lambda content: b"GGUF" * 99),
    "meta empty": ("index.json", lambda content: b""),
    "meta cut short": ("index.json", lambda content: content[:-3]),
    "meta is a list": ("index.json", lambda content: b"[]"),
    "meta is null": ("index.json", lambda content: b"null"),
    "meta without keys": ("index.json", lambda content: b"{}"),
    "meta is binary": ("index.json", lambda content: b"\xff\xfe\x00"),
    "meta nested too deeply": ("index.json", lambda content: b"[" * 200_000),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_index_is_not_loaded(
    damage: str, embedder: CountingEmbedder, whole: KnowledgeIndex, tmp_path: Path
) -> None:
    save(whole, tmp_path)
    name, change = DAMAGES[damage]
    (tmp_path / name).write_bytes(change((tmp_path / name).read_bytes()))
    assert load(tmp_path, embedder, "d1", SMALL_BASE) is None


def test_garbage_under_a_right_checksum_is_not_loaded(
    embedder: CountingEmbedder, whole: KnowledgeIndex, tmp_path: Path
) -> None:
    save(whole, tmp_path)
    garbage = b"garbage that faiss cannot read"
    meta = json.loads((tmp_path / "index.json").read_bytes())
    meta["sha256"] = hashlib.sha256(garbage).hexdigest()
    (tmp_path / "index.faiss").write_bytes(garbage)
    (tmp_path / "index.json").write_text(json.dumps(meta))
    assert load(tmp_path, embedder, "d1", SMALL_BASE) is None


@pytest.mark.parametrize("missing", ["index.faiss", "index.json", "tokens.bin"])
def test_half_a_pair_is_not_loaded(
    missing: str, embedder: CountingEmbedder, whole: KnowledgeIndex, tmp_path: Path
) -> None:
    save(whole, tmp_path)
    (tmp_path / missing).unlink()
    assert load(tmp_path, embedder, "d1", SMALL_BASE) is None


def test_an_index_and_the_meta_of_another_do_not_make_a_pair(
    embedder: CountingEmbedder, whole: KnowledgeIndex, tmp_path: Path
) -> None:
    """As a crash between the two files leaves them."""
    save(build(embedder, "d0", SMALL_BASE[:2]), tmp_path / "old")
    save(whole, tmp_path / "new")
    shutil.copy(tmp_path / "new" / "index.faiss", tmp_path / "old" / "index.faiss")
    assert load(tmp_path / "old", embedder, "d0", SMALL_BASE[:2]) is None
    assert load(tmp_path / "old", embedder, "d1", SMALL_BASE) is None


def test_saving_leaves_no_other_files(whole: KnowledgeIndex, tmp_path: Path) -> None:
    save(whole, tmp_path / "index")
    save(whole, tmp_path / "index")
    names = sorted(path.name for path in (tmp_path / "index").iterdir())
    assert names == ["index.faiss", "index.json", "tokens.bin"]


# --- the knowledge base ---------------------------------------------------------------------------


@pytest.fixture
async def bridge(embedder: CountingEmbedder, anyio_backend: str) -> AsyncIterator[EncodingBridge]:
    bridge = EncodingBridge(embedder)
    yield bridge
    bridge.close()


@pytest.mark.anyio
async def test_an_import_is_visible_to_the_next_query(
    bridge: EncodingBridge, tmp_path: Path
) -> None:
    source = Source(PASSWORD, REFUND)
    base = KnowledgeBase(source, bridge, tmp_path)
    vector = await bridge.encode_one(CRASH.question)
    assert CRASH not in [p.article for p in await base.search(CRASH.question, vector, limit=3)]
    source.now = (PASSWORD, REFUND, CRASH)
    assert (await base.search(CRASH.question, vector, limit=3))[0].article == CRASH
    source.now = (PASSWORD,)
    assert [p.article for p in await base.search(CRASH.question, vector, limit=3)] == [PASSWORD]
    source.now = ()
    assert await base.search(CRASH.question, vector, limit=3) == ()
    assert await base.categories(CRASH.question, vector) == {}


@pytest.mark.anyio
async def test_the_same_articles_are_read_and_embedded_once(
    bridge: EncodingBridge, embedder: CountingEmbedder, tmp_path: Path
) -> None:
    source = Source(*SMALL_BASE)
    base = KnowledgeBase(source, bridge, tmp_path)
    vector = await bridge.encode_one("password")
    for _ in range(5):
        await base.search("password", vector, limit=3)
        await base.categories("password", vector)
    assert source.reads == 1
    assert len(embedder.texts) == ROWS + 1


@pytest.mark.anyio
async def test_queries_at_once_wait_for_one_build(
    bridge: EncodingBridge, embedder: CountingEmbedder, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way, so that no query finds what another one saved")
    base = KnowledgeBase(Source(*SMALL_BASE), bridge, tmp_path / "file")
    vector = await bridge.encode_one("password")
    found = await asyncio.gather(*(base.search("password", vector, limit=2) for _ in range(20)))
    assert len(set(found)) == 1
    assert len(embedder.texts) == ROWS + 1


@pytest.mark.anyio
async def test_a_restart_loads_what_the_last_run_saved(
    bridge: EncodingBridge, embedder: CountingEmbedder, tmp_path: Path
) -> None:
    await KnowledgeBase(Source(*SMALL_BASE), bridge, tmp_path).refresh()
    embedder.texts.clear()
    again = await KnowledgeBase(Source(*SMALL_BASE), bridge, tmp_path).refresh()
    assert embedder.texts == []
    assert again.articles == SMALL_BASE


@pytest.mark.anyio
@pytest.mark.parametrize("damage", DAMAGES)
async def test_a_damaged_index_is_rebuilt_and_saved_again(
    damage: str, bridge: EncodingBridge, embedder: CountingEmbedder, tmp_path: Path
) -> None:
    await KnowledgeBase(Source(*SMALL_BASE), bridge, tmp_path).refresh()
    name, change = DAMAGES[damage]
    (tmp_path / name).write_bytes(change((tmp_path / name).read_bytes()))
    embedder.texts.clear()
    rebuilt = await KnowledgeBase(Source(*SMALL_BASE), bridge, tmp_path).refresh()
    assert len(embedder.texts) == ROWS
    assert look(rebuilt, REFUND.question)[0][0] == REFUND.id
    embedder.texts.clear()
    await KnowledgeBase(Source(*SMALL_BASE), bridge, tmp_path).refresh()
    assert embedder.texts == []


@pytest.mark.anyio
async def test_a_changed_article_embeds_only_its_own_texts(
    bridge: EncodingBridge, embedder: CountingEmbedder, tmp_path: Path
) -> None:
    source = Source(*SMALL_BASE)
    base = KnowledgeBase(source, bridge, tmp_path)
    await base.refresh()
    embedder.texts.clear()
    source.now = (*SMALL_BASE[:3], replace(HOURS, question="When are you there?"))
    await base.refresh()
    assert embedder.texts == [f"When are you there? {HOURS.answer}", "When are you there?"]


@pytest.mark.anyio
async def test_a_folder_that_cannot_be_written_costs_no_search(
    bridge: EncodingBridge, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    base = KnowledgeBase(Source(*SMALL_BASE), bridge, tmp_path / "file")
    vector = await bridge.encode_one(REFUND.question)
    assert (await base.search(REFUND.question, vector, limit=1))[0].article == REFUND


@given(st.lists(st.sampled_from(SMALL_BASE), unique=True, max_size=4), st.booleans())
@settings(max_examples=30, deadline=None)
def test_an_index_of_any_articles_survives_saving(
    articles: list[Article], from_known: bool
) -> None:
    embedder = HashedEmbedder()
    known = BUILT if from_known else None
    made = build(embedder, "d", articles, known=known)
    with tempfile.TemporaryDirectory() as folder:
        save(made, Path(folder))
        loaded = load(Path(folder), embedder, "d", articles)
    assert loaded is not None
    assert look(loaded, "refund password") == look(made, "refund password")
