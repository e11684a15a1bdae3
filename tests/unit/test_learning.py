"""Learning, over the hashed twin: a desk with words of its own, and somebody who labels at random.

The desk's traffic is made up here: what it calls by which category is nothing an example of ours
could know.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import pytest

from appliance.domain.examples import Example, held_out, teaching, text_key
from appliance.domain.policy import (
    CATEGORIES,
    DESK_WEIGHT_MAX,
    DESK_WEIGHT_MIN,
    GATE_TOLERANCE,
    RECALL_MIN,
    Category,
)
from appliance.knowledge.embedding import HashedEmbedder
from appliance.understanding.learning import Duel, Verdict, desk_weight, learn
from appliance.understanding.learnt import Learnt, LearntReader, as_shipped
from appliance.understanding.reader import train
from appliance.understanding.recall import recalled, remember

EMBEDDER = HashedEmbedder()
encode = EMBEDDER.encode

SHIPPED_WORDS: dict[Category, str] = {
    "Technical": "crash error export sync install slow screen",
    "Billing": "invoice refund charge payment price card plan",
    "Account": "password login email profile delete username access",
    "General": "hours office contact partner address feedback career",
}
DESK_WORDS: dict[Category, str] = {
    "Technical": "turbine rotor gearbox vibration sensor pitch",
    "Billing": "tariff kilowatt levy settlement rebate subsidy",
    "Account": "meter tenant handover metering registry holder",
    "General": "tour visitor landowner noise ballot village",
}
FILLERS = ["please", "help", "with", "my", "the", "about", "question", "again", "today", "some"]


def message(words: str, rng: random.Random) -> str:
    chosen = rng.sample(words.split(), 3) + rng.sample(FILLERS, 3)
    rng.shuffle(chosen)
    return " ".join(chosen)


def traffic(words: dict[Category, str], count: int, seed: int) -> list[Example]:
    """That many different messages of each category."""
    rng = random.Random(seed)
    found: dict[str, Example] = {}
    for category in CATEGORIES:
        while sum(e.category == category for e in found.values()) < count:
            text = message(words[category], rng)
            found.setdefault(text_key(text), Example(text, category))
    examples = list(found.values())
    rng.shuffle(examples)
    return examples


def shipped_rows() -> list[dict[str, Any]]:
    moods = {
        "Positive": "love great wonderful",
        "Neutral": "how where when",
        "Negative": "sad bad disappointed",
        "Angry": "furious scam idiots",
    }
    rng = random.Random(7)
    rows: list[dict[str, Any]] = [
        {"text": e.text, "category": e.category} for e in traffic(SHIPPED_WORDS, 60, 1)
    ]
    rows += [
        {"text": f"{rng.choice(words.split())} {message(' '.join(FILLERS), rng)}", "sentiment": m}
        for m, words in moods.items()
        for _ in range(15)
    ]
    rows += [{"text": f"{w} {n}", "intent": w} for w in ("question", "person") for n in range(6)]
    return rows


ROWS = shipped_rows()


@pytest.fixture(scope="module")
def shipped() -> Learnt:
    return as_shipped(train(ROWS, encode))


def taught(
    examples: Sequence[Example],
    in_charge: Learnt,
    shipped: Learnt,
    golden: Sequence[str] = (),
) -> tuple[Learnt, dict[str, Verdict]]:
    without = {name: each.head for name, each in shipped.items()}
    keys = {text_key(text) for text in golden}
    learnt, verdicts = learn(ROWS, teaching(examples, keys), encode, in_charge, without)
    return learnt, {verdict.head: verdict for verdict in verdicts}


def accuracy(learnt: Learnt, examples: Sequence[Example]) -> float:
    reader = LearntReader(learnt)
    vectors = encode([example.text for example in examples])
    return float(
        np.mean(
            [
                reader.category(e.text, vector, votes={})[0] == e.category
                for e, vector in zip(examples, vectors, strict=True)
            ]
        )
    )


def at_random(examples: Sequence[Example], seed: int = 5) -> list[Example]:
    rng = random.Random(seed)
    return [Example(e.text, cast(Category, rng.choice(CATEGORIES))) for e in examples]


# --- what is learnt -------------------------------------------------------------------------------


def test_a_desk_teaches_its_own_words(shipped: Learnt) -> None:
    everything = traffic(DESK_WORDS, 60, 2)
    lesson, test = everything[:120], everything[120:]
    before = accuracy(shipped, test)
    learnt, verdicts = taught(lesson, shipped, shipped)
    assert set(verdicts) == {"category"}
    verdict = verdicts["category"]
    assert verdict.kept
    assert (verdict.taught, verdict.why) == (len(lesson), "")
    assert verdict.desk.n == sum(held_out(text_key(e.text)) for e in lesson)
    assert verdict.shipped.n == 240
    assert verdict.desk.after > verdict.desk.before
    assert before < 0.6
    assert accuracy(learnt, test) > 0.9
    assert accuracy(learnt, traffic(SHIPPED_WORDS, 20, 3)) > 0.9
    for head in ("sentiment", "intent"):
        assert learnt[head] is shipped[head]


def test_nothing_to_learn_changes_nothing(shipped: Learnt) -> None:
    learnt, verdicts = taught([], shipped, shipped)
    assert learnt == shipped
    assert verdicts == {}
    mood_only = [Example("how odd a turbine", sentiment="Positive")]
    _, verdicts = taught(mood_only, shipped, shipped)
    assert set(verdicts) == {"sentiment"}


@pytest.mark.parametrize("judges", [True, False])
def test_one_correction_counts_whichever_side_its_hash_is_on(shipped: Learnt, judges: bool) -> None:
    text = next(
        text
        for n in range(100)
        if held_out(text_key(text := f"refund of the payment by card {n}")) is judges
    )
    others = traffic(SHIPPED_WORDS, 25, 4)
    before = accuracy(shipped, others)
    learnt, verdicts = taught([Example(text, "General")], shipped, shipped)
    assert verdicts["category"].kept
    for near in (text, text.upper(), f"{text}!", f"hi, {text}"):
        votes = {"Billing": 0.99, "General": 0.01}
        (vector,) = encode([near])
        assert LearntReader(learnt).category(near, vector, votes=votes)[0] == "General", near
    assert accuracy(learnt, others) >= before - 0.05


def test_learning_is_deterministic(shipped: Learnt) -> None:
    lesson = traffic(DESK_WORDS, 10, 2)
    one, _ = taught(lesson, shipped, shipped)
    other, _ = taught(lesson, shipped, shipped)
    assert {n: h.digest for n, h in one.items()} == {n: h.digest for n, h in other.items()}
    again, verdicts = taught(lesson, one, shipped)
    assert verdicts == {}
    assert again == one


def test_golden_texts_do_not_teach(shipped: Learnt) -> None:
    lesson = traffic(DESK_WORDS, 10, 2)
    golden = [e.text for e in lesson[::2]]
    with_golden, _ = taught(lesson, shipped, shipped, golden)
    without, _ = taught([e for e in lesson if e.text not in golden], shipped, shipped)
    assert with_golden["category"].digest == without["category"].digest


def test_the_twins_never_saw_a_judge(shipped: Learnt) -> None:
    lesson = traffic(DESK_WORDS, 30, 2)
    teachers = [e for e in lesson if not held_out(text_key(e.text))]
    learnt, _ = taught(lesson, shipped, shipped)
    only_teachers, _ = taught(teachers, shipped, shipped)
    twin = learnt["category"].judged
    np.testing.assert_array_equal(twin.weights, only_teachers["category"].head.weights)
    assert learnt["category"].judged_recall is not None
    assert len(learnt["category"].judged_recall.labels) == len(teachers)


# --- what is refused ------------------------------------------------------------------------------


def test_somebody_who_labels_our_words_at_random_is_refused(shipped: Learnt) -> None:
    _, verdicts = taught(at_random(traffic(SHIPPED_WORDS, 60, 9)), shipped, shipped)
    assert not verdicts["category"].kept
    assert "shipped examples" in verdicts["category"].why


def test_what_unlearns_the_desks_own_words_is_refused(shipped: Learnt) -> None:
    good = traffic(DESK_WORDS, 60, 2)
    learnt, _ = taught(good, shipped, shipped)
    teachers = [e for e in good if not held_out(text_key(e.text))]
    spoilt = good + at_random(teachers)
    kept, verdicts = taught(spoilt, learnt, shipped)
    assert not verdicts["category"].kept
    assert "held-out corrections" in verdicts["category"].why
    assert kept["category"] is learnt["category"]


def test_a_bad_head_does_not_hold_up_a_good_one(shipped: Learnt) -> None:
    bad = at_random(traffic(SHIPPED_WORDS, 60, 9))
    mood = [Example("turbine wonderful visitor", sentiment="Negative")]
    learnt, verdicts = taught([*bad, *mood], shipped, shipped)
    assert (verdicts["category"].kept, verdicts["sentiment"].kept) == (False, True)
    assert learnt["category"] is shipped["category"]
    assert learnt["sentiment"] is not shipped["sentiment"]


def test_taking_everything_back_returns_to_what_is_shipped(shipped: Learnt) -> None:
    learnt, _ = taught(traffic(DESK_WORDS, 10, 2), shipped, shipped)
    back, verdicts = taught([], learnt, shipped)
    assert verdicts["category"].kept
    assert back["category"].digest == shipped["category"].digest


@pytest.mark.parametrize(
    ("n", "lost", "won", "is_lost"),
    [
        (0, 0, 0, False),
        (1, 1, 0, False),
        (4, 3, 0, True),
        (100, 8, 8, False),
        (1000, 40, 30, False),
        (1000, 60, 20, True),
    ],
)
def test_chance_is_no_loss(n: int, lost: int, won: int, is_lost: bool) -> None:
    assert Duel(n, 0.9, 0.8, lost, won).is_lost(GATE_TOLERANCE) is is_lost


def test_few_corrections_weigh_more_each_and_never_less_than_an_example() -> None:
    weights = [desk_weight(n) for n in (1, 10, 40, 100, 1_000, 100_000)]
    assert weights == sorted(weights, reverse=True)
    assert (weights[0], weights[-1]) == (DESK_WEIGHT_MAX, DESK_WEIGHT_MIN)


# --- by heart -------------------------------------------------------------------------------------


def unit(cosine: float) -> Any:
    """A vector with this cosine to the first axis."""
    vector = np.zeros(EMBEDDER.dimensions, dtype=np.float32)
    vector[:2] = cosine, (1 - cosine**2) ** 0.5
    return vector


@pytest.mark.parametrize("beyond", [0.02, -0.02])
def test_only_all_but_equal_messages_are_recalled(beyond: float) -> None:
    known = remember(unit(1.0)[None], ["where is it"], ["Account"])
    found = recalled(known, "where is it", unit(RECALL_MIN.value + beyond), mood=False)
    assert found == ("Account" if beyond > 0 else None)


def test_of_equal_messages_the_latest_is_recalled() -> None:
    known = remember(np.stack([unit(1.0)] * 2), ["x", "x"], ["Billing", "Account"])
    assert recalled(known, "x", unit(1.0), mood=False) == "Account"


@pytest.mark.parametrize(
    ("written", "mood"), [("where is my order", "Neutral"), ("WHERE IS MY ORDER!!!", None)]
)
def test_a_mood_is_recalled_only_where_it_is_written_alike(written: str, mood: str | None) -> None:
    known = remember(unit(1.0)[None], ["where is my order"], ["Neutral"])
    assert recalled(known, written, unit(1.0), mood=True) == mood
