"""Reads a message: category, sentiment and intent from three heads trained on
``kb/examples.jsonl``.

What was measured by five-fold cross-validation on the examples, and on two public pools of other
companies without an example from them: category .87, and .81 and .83; sentiment .80. Surface
features help sentiment and anger (+.03 to +.05) and harm category and intent, so only the sentiment
head gets them. The desk's own articles vote on the category too: on two desks' development queries
that took it from .72 and .63 to .86 and .76. The language model is asked only where ``opinion``
found that its word counts: that of the embedded one, .51 right by label likelihood, does not.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from appliance.domain.policy import (
    ANGER_MIN,
    CATEGORIES,
    CATEGORY_TEMPERATURE,
    INTENTS,
    PERSON_MIN,
    SENTIMENT_TEMPERATURE,
    SENTIMENTS,
    VOTE_FLOOR,
    Category,
    Intent,
    Sentiment,
)
from appliance.errors import InvalidInput
from appliance.understanding import heads
from appliance.understanding.features import join
from appliance.understanding.heads import Floats, Head
from appliance.understanding.phrases import asks_for_person

FEATURES_VERSION = "2"
"""Part of the fingerprint: change it when features or strengths change."""

STRENGTHS = {"category": 2.0, "sentiment": 1.0, "intent": 10.0}
LABELS: dict[str, tuple[str, ...]] = {
    "category": CATEGORIES,
    "sentiment": SENTIMENTS,
    "intent": INTENTS,
}
LATER_TURNS_ONLY = ("failure", "confirmation")
"""Intents that make no sense for a first message; there the head must choose among the others."""


class Reader:
    """Keeps the ``Reading`` protocol. Immutable; a retrained reader replaces the old one whole."""

    def __init__(self, trained: dict[str, Head]) -> None:
        self.trained = trained
        self._heads = trained
        self.fingerprint = heads.digest(trained)

    def category(
        self,
        text: str,
        vector: Floats,
        *,
        votes: dict[str, float],
        advice: dict[str, float] | None = None,
    ) -> tuple[Category, float]:
        """See ``Reading``. Head and articles are two witnesses: their odds multiply."""
        found = _advised(self._heads["category"].probabilities(vector), advice)
        if votes:
            joint = {label: p * (votes.get(label, 0.0) + VOTE_FLOOR) for label, p in found.items()}
            found = _tempered(joint, CATEGORY_TEMPERATURE.value)
        label, confidence = _best(found)
        return cast(Category, label), confidence

    def sentiment(
        self, text: str, vector: Floats, *, advice: dict[str, float] | None = None
    ) -> tuple[Sentiment, float]:
        """See ``Reading``. Anger hands a customer over, so it takes more than being the likeliest
        label."""
        features = join(np.asarray(vector)[np.newaxis], [text])[0]
        found = _advised(self._heads["sentiment"].probabilities(features), advice)
        tempered = _tempered(found, SENTIMENT_TEMPERATURE.value)
        if found["Angry"] < ANGER_MIN.value:
            del tempered["Angry"]
        label, confidence = _best(tempered)
        return cast(Sentiment, label), confidence

    def intent(self, text: str, vector: Floats, *, first: bool) -> tuple[Intent, float]:
        """See ``Reading``."""
        found = self._heads["intent"].probabilities(vector)
        left_out = {"person", *LATER_TURNS_ONLY} if first else {"person"}
        found = {label: p for label, p in found.items() if label not in left_out}
        total = sum(found.values())
        label, confidence = _best({label: p / total for label, p in found.items()})
        return cast(Intent, label), confidence

    def wants_person(self, text: str, vectors: Sequence[Floats]) -> bool:
        """See ``Reading``. Long mails ask for a call in one sentence, so each sentence is looked
        at."""
        if asks_for_person(text):
            return True
        head = self._heads["intent"]
        return max(head.probabilities(v)["person"] for v in vectors) >= PERSON_MIN.value


def read_examples(path: Path) -> list[dict[str, Any]]:
    """Labelled queries, one JSON object a line.

    :raises InvalidInput: naming the first line that is wrong.
    """
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            text = row["text"]
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise InvalidInput(f'{path}, line {number}: expected an object with "text".') from error
        if not isinstance(text, str):
            raise InvalidInput(f'{path}, line {number}: "text" must be a text.')
        for key, allowed in LABELS.items():
            if row.get(key) is not None and row[key] not in allowed:
                raise InvalidInput(
                    f'{path}, line {number}: "{key}" must be one of {", ".join(allowed)}.'
                )
        rows.append(row)
    return rows


def load_or_train(
    examples: Path, saved: Path, encode: Callable[[Sequence[str]], Floats], encoder: str
) -> Reader:
    """The reader for these examples and this encoder: from ``saved`` where it fits, else trained
    and saved.

    :param encode: blocking; texts to vectors of shape (n, dimensions).
    :param encoder: fingerprint of the embedding model.
    """
    content = hashlib.sha256(examples.read_bytes()).hexdigest()
    fingerprint = f"{FEATURES_VERSION}:{content}:{encoder}"
    trained = heads.load(saved, fingerprint)
    if trained is None or set(trained) != set(LABELS):
        trained = train(read_examples(examples), encode)
        try:
            heads.save(trained, fingerprint, saved)
        except OSError:
            return Reader(
                trained
            )  # a full disk costs the next start a second, not this one its reader
    return Reader(trained)


def train(
    rows: Sequence[dict[str, Any]], encode: Callable[[Sequence[str]], Floats]
) -> dict[str, Head]:
    """Heads by name from labelled rows; a row without a label for a head does not train that
    head."""
    texts = [row["text"] for row in rows]
    vectors = encode(texts)
    trained: dict[str, Head] = {}
    for name in LABELS:
        at = [i for i, row in enumerate(rows) if row.get(name) is not None]
        chosen = features(name, vectors[at], [texts[i] for i in at])
        trained[name] = heads.train(chosen, [rows[i][name] for i in at], strength=STRENGTHS[name])
    return trained


def features(name: str, vectors: Floats, texts: list[str]) -> Floats:
    """What a head sees of texts with these vectors, a row each."""
    return join(vectors, texts) if name == "sentiment" else vectors


def _advised(found: dict[str, float], advice: dict[str, float] | None) -> dict[str, float]:
    """Probabilities with the language model's word in them, where it has one."""
    if not advice:
        return found
    joint = {label: p * advice.get(label, 1.0) for label, p in found.items()}
    total = sum(joint.values())
    return {label: value / total for label, value in joint.items()}


def _tempered(odds: dict[str, float], temperature: float) -> dict[str, float]:
    """Probabilities of these odds, softer where the temperature is above 1."""
    shares = {label: value ** (1 / temperature) for label, value in odds.items()}
    total = sum(shares.values())
    return {label: share / total for label, share in shares.items()}


def _best(found: dict[str, float]) -> tuple[str, float]:
    label = max(found, key=lambda key: found[key])
    return label, found[label]
