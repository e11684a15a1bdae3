"""Category, mood and intent from heads trained on a handful of texts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from appliance.domain.policy import (
    ANGER_MIN,
    CATEGORIES,
    CATEGORY_TEMPERATURE,
    INTENTS,
    PERSON_MIN,
    SENTIMENTS,
)
from appliance.errors import InvalidInput
from appliance.knowledge.embedding import HashedEmbedder
from appliance.understanding import features, heads, reader
from appliance.understanding.features import MOOD_SIZE, SURFACE_SIZE, join, surface, valence
from appliance.understanding.heads import Head
from appliance.understanding.reader import LABELS, Reader, load_or_train, read_examples, train

EMBEDDER = HashedEmbedder()
ROWS: list[dict[str, Any]] = [
    {"text": text, "category": category, "sentiment": sentiment, "intent": intent}
    for text, category, sentiment, intent in (
        ("the app crashes on export", "Technical", "Negative", "question"),
        ("the sync app is slow and crashes", "Technical", "Neutral", "failure"),
        ("my invoice shows a wrong charge", "Billing", "Negative", "question"),
        ("refund the invoice charge you thieves", "Billing", "Angry", "question"),
        ("reset my password for the account", "Account", "Neutral", "question"),
        ("my account password works now", "Account", "Positive", "confirmation"),
        ("what are your opening hours", "General", "Neutral", "question"),
        ("hello and good morning", "General", "Positive", "greeting"),
        ("thank you so much", None, "Positive", "thanks"),
        ("let me speak with an agent", None, "Neutral", "person"),
        ("tell me a joke about penguins", None, "Neutral", "offtopic"),
        ("you stupid useless thieves!!", None, "Angry", "question"),
    )
]


class CountingEncode:
    """Counts the texts it embeds."""

    def __init__(self) -> None:
        self.texts = 0

    def __call__(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        self.texts += len(texts)
        return EMBEDDER.encode(texts)


def vector(text: str) -> npt.NDArray[np.float32]:
    return EMBEDDER.encode([text])[0]


@pytest.fixture(scope="module")
def trained() -> dict[str, Head]:
    return train(ROWS, EMBEDDER.encode)


@pytest.fixture
def examples(tmp_path: Path) -> Path:
    path = tmp_path / "examples.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in ROWS) + "\n\n", "utf-8")
    return path


def head(**logits: float) -> Head:
    """A head that finds the same for every text."""
    labels = tuple(logits)
    return Head(
        labels,
        np.zeros((len(labels), EMBEDDER.dimensions), dtype=np.float32),
        np.array(list(logits.values()), dtype=np.float32),
    )


def log_head(shares: dict[str, float]) -> Head:
    """A head whose probabilities are these."""
    return head(**{label: float(np.log(share)) for label, share in shares.items()})


def mood_head(shares: dict[str, float]) -> Head:
    plain = log_head(shares)
    wide = np.zeros((len(shares), EMBEDDER.dimensions + MOOD_SIZE), dtype=np.float32)
    return Head(plain.labels, wide, plain.bias)


# --- training -------------------------------------------------------------------------------------


def test_a_handful_of_texts_is_learnt(trained: dict[str, Head]) -> None:
    desk = Reader(trained)
    right = sum(
        desk.category(row["text"], vector(row["text"]), votes={})[0] == row["category"]
        for row in ROWS
        if row["category"]
    )
    assert right == sum(row["category"] is not None for row in ROWS)


def test_training_is_deterministic(trained: dict[str, Head]) -> None:
    again = train(ROWS, EMBEDDER.encode)
    for name, one in trained.items():
        assert one.labels == again[name].labels
        np.testing.assert_array_equal(one.weights, again[name].weights)
        np.testing.assert_array_equal(one.bias, again[name].bias)


def test_each_head_knows_its_own_labels(trained: dict[str, Head]) -> None:
    assert set(trained["category"].labels) == set(CATEGORIES)
    assert set(trained["sentiment"].labels) == set(SENTIMENTS)
    assert set(trained["intent"].labels) == set(INTENTS)


def test_a_row_without_a_label_does_not_train_that_head() -> None:
    unlabelled = [{"text": "penguins penguins penguins"}, *ROWS]
    again = train(unlabelled, EMBEDDER.encode)
    assert set(again["category"].labels) == set(CATEGORIES)
    for name, one in train(ROWS, EMBEDDER.encode).items():
        np.testing.assert_array_equal(one.weights, again[name].weights)


@pytest.mark.parametrize("labels", [("a", "b"), ("a", "b", "c")])
def test_a_head_tells_as_many_probabilities_as_it_has_labels(labels: tuple[str, ...]) -> None:
    features = EMBEDDER.encode([f"text of {label} {n}" for label in labels for n in range(4)])
    trained = heads.train(features, [label for label in labels for _ in range(4)], strength=1.0)
    found = trained.probabilities(vector("text of b 1"))
    assert set(found) == set(labels)
    assert sum(found.values()) == pytest.approx(1.0, abs=1e-5)
    assert max(found, key=lambda label: found[label]) == "b"


@pytest.mark.parametrize("bias", [0.0, 500.0, -500.0])
def test_probabilities_add_up_however_large_the_logits(bias: float) -> None:
    found = head(a=bias, b=bias + 1, c=0.0).probabilities(vector("x"))
    assert sum(found.values()) == pytest.approx(1.0, abs=1e-5)
    assert all(np.isfinite(list(found.values())))


# --- saved heads ----------------------------------------------------------------------------------


def test_what_was_saved_is_loaded(trained: dict[str, Head], tmp_path: Path) -> None:
    path = tmp_path / "deep" / "heads.npz"
    heads.save(trained, "f1", path)
    loaded = heads.load(path, "f1")
    assert loaded is not None
    assert set(loaded) == set(trained)
    for name, one in trained.items():
        assert loaded[name].labels == one.labels
        assert loaded[name].probabilities is not None
        np.testing.assert_array_equal(loaded[name].weights, one.weights)
        np.testing.assert_array_equal(loaded[name].bias, one.bias)
    assert [file.name for file in path.parent.iterdir()] == ["heads.npz"]


def test_heads_of_other_examples_are_not_loaded(trained: dict[str, Head], tmp_path: Path) -> None:
    heads.save(trained, "f1", tmp_path / "heads.npz")
    assert heads.load(tmp_path / "heads.npz", "f2") is None


def pickled() -> bytes:
    from io import BytesIO

    buffer = BytesIO()
    np.savez(buffer, fingerprint=np.array([{"an": "object"}], dtype=object))
    return buffer.getvalue()


DAMAGES: dict[str, Any] = {
    "empty": lambda content: b"",
    "text": lambda content: b"this is no archive",
    "cut short": lambda content: content[: len(content) // 2],
    "cut by one byte": lambda content: content[:-1],
    "one bit flipped in the data": lambda content: (
        content[: len(content) // 2]
        + bytes([content[len(content) // 2] ^ 1])
        + content[len(content) // 2 + 1 :]
    ),
    "zeros": lambda content: bytes(len(content)),
    "zip magic only": lambda content: b"PK\x03\x04" + bytes(60),
    "a single array": lambda content: b"\x93NUMPY" + content[6:40],
    "a pickle": lambda content: pickled(),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_or_foreign_file_is_ignored(
    damage: str, trained: dict[str, Head], tmp_path: Path
) -> None:
    path = tmp_path / "heads.npz"
    heads.save(trained, "f1", path)
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    assert heads.load(path, "f1") is None


def test_a_missing_file_is_no_error(tmp_path: Path) -> None:
    assert heads.load(tmp_path / "none.npz", "f1") is None


def test_a_foreign_archive_without_our_arrays_is_ignored(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", other=np.zeros(3))
    assert heads.load(tmp_path / "a.npz", "f1") is None
    np.savez(tmp_path / "b.npz", fingerprint=np.array("f1"), **{"category.labels": np.zeros(2)})
    assert heads.load(tmp_path / "b.npz", "f1") is None


def test_the_second_start_does_not_train(examples: Path, tmp_path: Path) -> None:
    encode = CountingEncode()
    first = load_or_train(examples, tmp_path / "heads.npz", encode, "e1")
    assert encode.texts == len(ROWS)
    second = load_or_train(examples, tmp_path / "heads.npz", encode, "e1")
    assert encode.texts == len(ROWS)
    text = "the export crashes"
    assert first.category(text, vector(text), votes={}) == second.category(
        text, vector(text), votes={}
    )


@pytest.mark.parametrize("change", ["examples", "encoder", "features", "damage"])
def test_what_the_heads_depend_on_makes_them_train_anew(
    change: str, examples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = CountingEncode()
    saved = tmp_path / "heads.npz"
    load_or_train(examples, saved, encode, "e1")
    encoder = "e1"
    if change == "examples":
        examples.write_text(examples.read_text("utf-8") + json.dumps(ROWS[0]) + "\n", "utf-8")
    elif change == "encoder":
        encoder = "e2"
    elif change == "features":
        monkeypatch.setattr(reader, "FEATURES_VERSION", "other")
    else:
        saved.write_bytes(b"damaged")
    before = encode.texts
    load_or_train(examples, saved, encode, encoder)
    assert encode.texts > before
    after = encode.texts
    load_or_train(examples, saved, encode, encoder)
    assert encode.texts == after, "the new heads were saved in place of the old ones"


def test_a_folder_that_cannot_be_written_costs_only_time(examples: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    desk = load_or_train(examples, tmp_path / "file" / "heads.npz", EMBEDDER.encode, "e1")
    assert desk.category("x", vector("password account"), votes={})[0] == "Account"


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("{not json", "line 3"),
        ('["text"]', "line 3"),
        ('{"category": "Billing"}', "line 3"),
        ('{"text": 5}', '"text"'),
        ('{"text": "x", "category": "Sales"}', '"category"'),
        ('{"text": "x", "sentiment": "Sad"}', '"sentiment"'),
        ('{"text": "x", "intent": ["question"]}', '"intent"'),
        ("null", "line 3"),
        ('"text"', "line 3"),
    ],
)
def test_a_bad_example_is_named_by_file_and_line(line: str, named: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text(f'{{"text": "fine"}}\n\n{line}\n', "utf-8")
    with pytest.raises(InvalidInput) as error:
        read_examples(path)
    assert "mine.jsonl" in error.value.detail
    assert "line 3" in error.value.detail
    assert named in error.value.detail


# --- reading --------------------------------------------------------------------------------------


def test_votes_multiply_with_the_heads_odds() -> None:
    desk = Reader({"category": log_head({"Billing": 0.6, "Account": 0.3, "Technical": 0.1})})
    label, confidence = desk.category("x", vector("x"), votes={"Account": 0.8, "Billing": 0.2})
    assert label == "Account"
    softened = (0.24 / 0.12) ** (1 / CATEGORY_TEMPERATURE.value)
    assert confidence == pytest.approx(softened / (1 + softened), abs=0.01)


def test_without_votes_the_head_decides_alone() -> None:
    desk = Reader({"category": log_head({"Billing": 0.6, "Account": 0.4})})
    label, confidence = desk.category("x", vector("x"), votes={})
    assert (label, confidence) == ("Billing", pytest.approx(0.6, abs=1e-4))


def test_a_category_without_articles_keeps_a_chance_when_the_head_is_sure() -> None:
    shares = {"Billing": 1 - 1e-6, "Account": 1e-6}
    label, confidence = Reader({"category": log_head(shares)}).category(
        "x", vector("x"), votes={"Account": 1.0}
    )
    assert label == "Billing"
    assert 0 < confidence <= 1


@pytest.mark.parametrize(
    ("anger", "mood"), [(ANGER_MIN.value + 0.02, "Angry"), (ANGER_MIN.value - 0.02, "Negative")]
)
def test_anger_takes_more_than_being_the_likeliest(anger: float, mood: str) -> None:
    rest = 1 - anger
    shares = {"Angry": anger, "Negative": rest * 0.7, "Neutral": rest * 0.3}
    label, confidence = Reader({"sentiment": mood_head(shares)}).sentiment("x", vector("x"))
    assert label == mood
    assert 0 < confidence <= 1


INTENT_SHARES = {
    "failure": 0.4,
    "confirmation": 0.25,
    "person": 0.2,
    "question": 0.1,
    "thanks": 0.05,
}


def test_a_first_message_neither_fails_nor_confirms() -> None:
    desk = Reader({"intent": log_head(INTENT_SHARES)})
    assert desk.intent("x", vector("x"), first=True) == (
        "question",
        pytest.approx(0.1 / 0.15, abs=1e-3),
    )
    assert desk.intent("x", vector("x"), first=False)[0] == "failure"


def test_asking_for_a_person_is_no_intent_of_its_own() -> None:
    desk = Reader({"intent": log_head({"person": 0.9, "question": 0.06, "thanks": 0.04})})
    assert desk.intent("x", vector("x"), first=False)[0] == "question"


@pytest.mark.parametrize(
    ("share", "wanted"), [(PERSON_MIN.value + 0.02, True), (PERSON_MIN.value - 0.02, False)]
)
def test_a_person_is_wanted_when_the_head_is_sure(share: float, wanted: bool) -> None:
    desk = Reader({"intent": log_head({"person": share, "question": 1 - share})})
    assert desk.wants_person("could someone look at it", [vector("x")]) is wanted


def test_a_plain_request_needs_no_head_and_one_sentence_is_enough() -> None:
    unsure = Reader({"intent": log_head({"person": 0.01, "question": 0.99})})
    assert unsure.wants_person("Please let me speak to a human.", [vector("x")])
    one = np.zeros(EMBEDDER.dimensions, dtype=np.float32)
    one[0] = 1.0
    weights = np.zeros((2, EMBEDDER.dimensions), dtype=np.float32)
    weights[0, 0] = 10.0
    sensitive = Reader({"intent": Head(("person", "question"), weights, np.float32([0.0, 0.0]))})
    assert sensitive.wants_person("long mail", [vector("a"), one * 0, one])
    assert not sensitive.wants_person("long mail", [one * 0, one * 0])


# --- how it is written ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    ["", " ", "!!!", "HELLO", "😀😡☹", "a" * 10_000, "日本語", "?!?!?!", "fuck " * 500, "\x00"],
)
def test_surface_features_stay_between_0_and_1(text: str) -> None:
    found = surface(text)
    assert found.shape == (SURFACE_SIZE,)
    assert found.dtype == np.float32
    assert ((found >= 0) & (found <= 1)).all()


@pytest.mark.parametrize(
    ("angrier", "calmer"),
    [
        ("YOU ARE USELESS", "you are useful"),
        ("fix it!!!", "fix it"),
        ("you thieves", "you friends"),
        ("bad 😡", "bad"),
        ("what?!", "what?"),
    ],
)
def test_anger_shows_on_the_surface(angrier: str, calmer: str) -> None:
    assert surface(angrier).sum() > surface(calmer).sum()


def test_valence_knows_negation_and_emphasis() -> None:
    unpleasant, pleasant, both = valence("The new app is great")
    assert unpleasant == 0 < pleasant
    assert valence("The new app is not great")[2] < 0 < both < valence("The new app is GREAT!!!")[2]
    assert valence("").tolist() == [0, 0, 0]


def test_a_message_of_emoji_alone_costs_no_more_than_its_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The lexicon looks at every word for every word, and puts two words in an emoji's place."""
    read = []
    real = features._lexicon().polarity_scores

    def scores(text: str) -> dict[str, float]:
        read.append(text)
        return real(text)

    monkeypatch.setattr(features._lexicon(), "polarity_scores", scores)
    angry = valence("It broke again \U0001f621\U0001f621")
    assert angry[2] < 0
    assert read == ["It broke again \U0001f621\U0001f621"]
    valence("\U0001f600" * 8_000)
    assert read[1:] == ["\U0001f600" * features.VALENCE_EMOJI]
    valence("bad " * 2_000)
    assert len(read[2]) == features.VALENCE_CHARS


def test_joined_features_are_the_embedding_then_the_mood() -> None:
    texts = ["hello!", "bye"]
    joined = join(EMBEDDER.encode(texts), texts)
    assert joined.shape == (2, EMBEDDER.dimensions + MOOD_SIZE)
    mood = np.concatenate([valence("hello!"), surface("hello!")])
    np.testing.assert_array_equal(joined[0, EMBEDDER.dimensions :], mood)


def test_the_labels_are_those_of_the_policy() -> None:
    assert LABELS == {"category": CATEGORIES, "sentiment": SENTIMENTS, "intent": INTENTS}
