"""What the language model says of a message's category and mood, and how much that counts.

A model is asked for the probabilities of the labels, in one prefill. What it says is divided by
what it says on average, because weak models prefer a label whatever they read, and counts with a
weight that was fitted for these very weights on the shipped examples, against heads that saw
nothing of them. A weight of nothing means that the model is not even asked.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, Literal

import msgspec
import numpy as np

from appliance.domain.policy import (
    CATEGORIES,
    GATE_NOISE,
    OPINION_CHARS,
    OPINION_SECONDS,
    OPINION_WEIGHTS,
    SENTIMENTS,
)
from appliance.errors import ModelRejected, ModelUnavailable
from appliance.llm.interface import ChatMessage, ChatModel
from appliance.llm.structured import choose
from appliance.logs import get_logger
from appliance.understanding.heads import Floats

log = get_logger()

Asked = Literal["category", "sentiment"]
LABELS: Final[dict[Asked, tuple[str, ...]]] = {"category": CATEGORIES, "sentiment": SENTIMENTS}
TASKS: Final[dict[Asked, str]] = {
    "category": (
        "You sort messages to a support desk. Technical: how something works, or does not. "
        "Billing: prices, invoices, payments, refunds. Account: signing in, profile, access, "
        "personal data. General: anything else, as opening hours, delivery or the company. "
        "Name the one topic of the message."
    ),
    "sentiment": (
        "You read the mood of messages to a support desk. Positive: pleased or grateful. "
        "Neutral: matter of fact. Negative: disappointed, worried or annoyed. Angry: furious, "
        "insulting or threatening. Name the one mood of the message's writer."
    ),
}


class Opinion(msgspec.Struct, frozen=True):
    """How a model's word counts for one kind of label.

    ``usual`` are the mean log probabilities it gives; ``gain`` is what it adds to the mean log
    probability of the right label on examples that did not choose ``weight``; ``asked`` of them.
    """

    weight: float
    usual: dict[str, float]
    gain: float
    asked: int


Opinions = dict[str, dict[Asked, Opinion]]
"""By the SHA-256 of weights, or the name where nobody knows it."""


async def scores(model: ChatModel, kind: Asked, text: str) -> Mapping[str, float] | None:
    """Log probabilities of the labels as the model sees them; None where the backend tells none.

    :raises ModelUnavailable: there is no model to ask now.
    """
    if not model.capabilities.choice_scores:
        return None
    line = " ".join(text.split())[:OPINION_CHARS]
    messages = [ChatMessage("system", TASKS[kind]), ChatMessage("user", f"Message: {line}")]
    return (await choose(model, messages, LABELS[kind])).scores


def fitted(heads: Floats, said: Floats, right: Sequence[int], labels: Sequence[str]) -> Opinion:
    """The weight that a model's word deserves.

    Half of the examples choose it, the other half judges it: it is nothing unless it raises the
    probability of the right label there by more than chance explains.

    :param heads: log probabilities of heads that saw nothing of the examples, shape (n, labels).
    :param said: the model's, same shape.
    :param right: the index of each example's label.
    """
    usual = said.mean(axis=0)
    truth = np.asarray(right)
    chooses = np.arange(len(truth)) % 2 == 0

    def told(weight: float, where: Floats) -> Floats:
        logits = heads[where] + weight * (said[where] - usual)
        total = np.logaddexp.reduce(logits, axis=1)
        result: Floats = logits[np.arange(len(logits)), truth[where]] - total
        return result

    weight = max(OPINION_WEIGHTS, key=lambda each: told(each, chooses).mean())
    gains = told(weight, ~chooses) - told(0.0, ~chooses)
    noise = GATE_NOISE * gains.std() / max(1.0, len(gains)) ** 0.5
    kept = weight if len(gains) and gains.mean() > noise else 0.0
    return Opinion(
        kept,
        dict(zip(labels, usual.round(4).tolist(), strict=True)),
        round(float(gains.mean()), 4) if len(gains) else 0.0,
        len(gains),
    )


class ModelOpinion:
    """Asks the model in charge where its word counts. Keeps the ``Advice`` protocol.

    :param path: where weights are kept; looked at with each message, a stat.
    :param in_charge: what the weights in charge are called there, or None.
    """

    def __init__(self, model: ChatModel, path: Path, in_charge: Callable[[], str | None]) -> None:
        self._model = model
        self._path = path
        self._in_charge = in_charge
        self._stamp: int | None = None
        self._known: Opinions = {}

    def weights(self) -> dict[Asked, Opinion]:
        """How the model in charge counts; empty where nobody has measured it."""
        try:
            stamp = self._path.stat().st_mtime_ns
        except OSError:
            return {}
        if stamp != self._stamp:
            self._stamp, self._known = stamp, read(self._path)
        return self._known.get(self._in_charge() or "", {})

    def mark(self) -> str:
        """What tells two ways of counting apart, for the record of an answer; empty while the model
        has no say, because answers do not depend on it then."""
        counting = {kind: each for kind, each in self.weights().items() if each.weight}
        if not counting:
            return ""
        return f"+model:{hashlib.sha256(msgspec.json.encode(counting)).hexdigest()[:16]}"

    async def __call__(self, kind: Asked, text: str) -> dict[str, float]:
        """By what the odds of each label are multiplied; empty where the model has no say."""
        opinion = self.weights().get(kind)
        if opinion is None or not opinion.weight:
            return {}
        try:
            async with asyncio.timeout(OPINION_SECONDS):
                said = await scores(self._model, kind, text)
        except (ModelUnavailable, ModelRejected, TimeoutError) as error:
            log.info("no_opinion", kind=kind, reason=str(error))
            return {}
        if said is None:
            return {}
        exponents = {k: opinion.weight * (said[k] - opinion.usual[k]) for k in LABELS[kind]}
        most = max(exponents.values())
        return {label: float(np.exp(value - most)) for label, value in exponents.items()}


def read(path: Path) -> Opinions:
    """What is kept; nothing where the file is missing or damaged."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Opinions)
    except FileNotFoundError:
        return {}
    except (OSError, msgspec.MsgspecError) as error:
        log.warning("opinions_unreadable", file=str(path), error=str(error))
        return {}


def keep(path: Path, weights: str, opinions: dict[Asked, Opinion]) -> None:
    """Write down how a model counts.

    :raises OSError: the file cannot be written.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}")
    temporary.write_bytes(msgspec.json.encode(read(path) | {weights: opinions}))
    temporary.replace(path)
