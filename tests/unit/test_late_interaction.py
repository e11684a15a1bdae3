"""Tokens of a query meet those of articles: rare ones decide, and what is kept stays small."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from appliance.domain.passage import Article
from appliance.domain.policy import CATEGORY_HINT, RERANKED, TOKENS_SHARE
from appliance.knowledge.embedding import HashedEmbedder
from appliance.knowledge.index import KnowledgeIndex, build, load, save
from appliance.knowledge.late import TokenStore, gather, pack, record
from appliance.knowledge.tokens import Tokens, compact, unit
from tests.builders import CRASH, SMALL_BASE

EMBEDDER = HashedEmbedder()


def tokens_of(text: str) -> Tokens:
    return EMBEDDER.encode_tokens([text])[1][0]


def store(*articles: str) -> TokenStore:
    """Articles of one text each."""
    kept = [pack(tokens_of(text)) for text in articles]
    return gather(np.concatenate(kept), [len(each) for each in kept], [1] * len(kept))


# --- directions -----------------------------------------------------------------------------------

VECTORS = arrays(
    np.float32, (3, 384), elements=st.floats(-1, 1, width=32).map(lambda x: round(x, 3))
)


@settings(deadline=None, max_examples=30)
@given(VECTORS, st.sampled_from([1e-6, 0.05, 1.0, 1e6]))
def test_a_byte_a_component_keeps_the_direction(vectors: np.ndarray, length: float) -> None:
    vectors[:, 0] = 0.5  # no vector without a direction
    kept = unit(compact(np.asarray(vectors * length, dtype=np.float32)))
    wanted = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    assert float(np.einsum("ij,ij->i", kept, wanted).min()) > 0.999


def test_no_vector_and_no_token_have_no_direction() -> None:
    nothing = np.zeros((2, 4), dtype=np.float32)
    assert not compact(nothing).any()
    assert not unit(compact(nothing)).any()
    assert compact(nothing[:0]).shape == unit(compact(nothing[:0])).shape == (0, 4)


# --- similarity -----------------------------------------------------------------------------------


def test_having_all_tokens_is_one_and_having_none_is_nought() -> None:
    found = store("the pump leaks oil", "the valve", "heater")
    near = found.similarity(tokens_of("pump leaks"), [0, 1, 2])
    assert near.tolist() == pytest.approx([1, 0, 0], abs=1e-6)
    assert found.similarity(tokens_of("pump leaks"), [2, 0]).tolist() == near[[2, 0]].tolist()


def test_a_rare_token_counts_more_than_a_common_one() -> None:
    found = store("the pump leaks", "the valve leaks", "the pipe leaks", "a filter")
    rare, common = found.similarity(tokens_of("filter leaks"), [3, 0])
    assert rare > common > 0


def test_it_is_the_weighted_mean_of_the_greatest_cosines() -> None:
    """Against the definition, on random tokens."""
    random = np.random.default_rng(1)
    texts = [
        Tokens(
            random.integers(0, 9, size, dtype=np.int32),
            compact(random.normal(size=(size, 16)).astype(np.float32)),
        )
        for size in (4, 1, 7, 3)
    ]
    kept = [pack(each) for each in texts]
    found = gather(np.concatenate(kept), [4, 1, 7, 3], [2, 1, 1])
    query = Tokens(np.array([0, 3, 99], dtype=np.int32), texts[2].directions[:3])
    owned = [texts[:2], texts[2:3], texts[3:]]
    having = [sum(token in {*np.concatenate([t.ids for t in own])} for own in owned)
              for token in query.ids]  # fmt: skip
    weights = [0.1 + max(0.0, float(np.log(4 / (each + 0.5)))) for each in having]
    for near, own in zip(found.similarity(query, [0, 1, 2]), owned, strict=True):
        cosines = unit(query.directions) @ np.concatenate([unit(t.directions) for t in own]).T
        assert near == pytest.approx(np.average(cosines.max(axis=1), weights=weights), abs=1e-5)


@pytest.mark.parametrize("text", ["", "  ", "🙂"])
def test_a_query_without_tokens_is_near_to_nothing(text: str) -> None:
    assert store("the pump", "a valve").similarity(tokens_of(text), [0, 1]).tolist() == [0, 0]


def test_an_article_without_tokens_is_near_to_nothing() -> None:
    assert store("🙂", "a valve").similarity(tokens_of("valve"), [0, 1]).tolist() == [0, 1]


def test_tokens_of_other_texts_are_refused() -> None:
    whole = store("the pump", "a valve")
    with pytest.raises(ValueError, match="not those"):
        gather(whole.records[:-1], whole.lengths, [1, 1])
    with pytest.raises(ValueError, match="not those"):
        gather(whole.records, whole.lengths, [1])
    assert gather(np.zeros(0, dtype=record(4)), [], []).spans == ()


# --- in the index ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole() -> KnowledgeIndex:
    return build(EMBEDDER, "d", SMALL_BASE)


def test_an_article_has_the_tokens_of_its_question_and_its_sentences(whole: KnowledgeIndex) -> None:
    for at, article in enumerate(SMALL_BASE):
        first, last = whole.tokens.spans[at]
        wanted = tokens_of(f"{article.question} {article.answer}")
        assert whole.tokens.records["id"][first:last].tolist() == wanted.ids.tolist()


@pytest.mark.parametrize("category", [None, "Billing"])
def test_a_score_is_what_vectors_and_tokens_say_together(
    whole: KnowledgeIndex, category: str | None
) -> None:
    text = "monthly renewals refund"
    vector, tokens = EMBEDDER.encode([text])[0], tokens_of(text)
    plain = {p.article: p.score for p in whole.search(text, vector, limit=4)}
    found = whole.search(text, vector, limit=4, category=category, tokens=tokens)
    near = dict(zip(SMALL_BASE, whole.tokens.similarity(tokens, range(4)), strict=True))
    for passage in found:
        wanted = plain[passage.article] * (1 - TOKENS_SHARE.value)
        wanted += float(near[passage.article]) * TOKENS_SHARE.value
        wanted += CATEGORY_HINT if passage.article.category == category else 0
        assert passage.score == pytest.approx(wanted, abs=2e-4)
    scores = [passage.score for passage in found]
    assert scores == sorted(scores, reverse=True)


def test_tokens_tell_apart_what_vectors_do_not() -> None:
    """Twins to the vector, that of a query about something else."""
    twins = [
        replace(CRASH, id=name, question=f"The {name} crashes") for name in ("scanner", "printer")
    ]
    index = build(EMBEDDER, "d", twins)
    vector = EMBEDDER.encode(["crashes"])[0]
    for name in ("scanner", "printer"):
        (best, *_) = index.search("", vector, limit=1, tokens=tokens_of(f"my {name} crashes"))
        assert best.article.id == name


def test_only_the_best_candidates_are_reranked(monkeypatch: pytest.MonkeyPatch) -> None:
    articles = [
        Article(str(n), f"Reset part {n}", "Press the key.", "Technical") for n in range(90)
    ]
    index = build(EMBEDDER, "d", articles)
    asked: list[int] = []
    honest = TokenStore.similarity

    def counted(self: TokenStore, query: Tokens, owners: list[int]) -> np.ndarray:
        asked.append(len(owners))
        return honest(self, query, owners)

    monkeypatch.setattr(TokenStore, "similarity", counted)
    vector, tokens = EMBEDDER.encode(["reset part 7"])[0], tokens_of("reset part 7")
    found = index.search("reset part 7", vector, limit=5, tokens=tokens)
    assert found[0].article.id == "7"
    assert len(found) == 5
    assert len(index.search("reset part 7", vector, limit=50, tokens=tokens)) == 50
    assert asked[0] <= RERANKED
    assert asked[1] == 50


def test_saved_tokens_are_mapped_and_taken_over(whole: KnowledgeIndex, tmp_path: Path) -> None:
    save(whole, tmp_path)
    loaded = load(tmp_path, EMBEDDER, "d", SMALL_BASE)
    assert loaded is not None
    assert isinstance(loaded.tokens.records, np.memmap)
    np.testing.assert_array_equal(loaded.tokens.records, whole.tokens.records)
    assert loaded.tokens.frequencies == whole.tokens.frequencies
    # Another index takes the place of the file while this one is in use.
    grown = build(EMBEDDER, "d2", [*SMALL_BASE[1:], replace(CRASH, id="copy")], known=loaded)
    save(grown, tmp_path)
    np.testing.assert_array_equal(loaded.tokens.records, whole.tokens.records)
    again = load(tmp_path, EMBEDDER, "d2", grown.articles)
    assert again is not None
    fresh = build(EMBEDDER, "d2", grown.articles)
    np.testing.assert_array_equal(again.tokens.records, fresh.tokens.records)
