"""The judge: does a source say what a sentence says? Code decides, not the model that wrote it.

Every word of meaning needs a counterpart in one sentence of the source or in neighbouring ones;
numbers, names, negations, conditions, permissions and duties have to be the same on both sides;
and nothing that limits the source's sentence may be left out. It errs towards "no": a cut sentence
costs style, an invented one costs trust.

Words meet by their forms and by the tables of ``lexicon``. Vectors of words do not help: between
"landlord" and "tenant" the cosine is .84, between "lost" and "missing" .30, and with them not one
development pair was judged otherwise. So a verdict is the same on every machine and every day.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import lru_cache
from typing import Final

from appliance.answering.aligned import Aligned, joined
from appliance.answering.alignment import align
from appliance.answering.limits import objections
from appliance.answering.tokens import Token, may_act
from appliance.answering.verbatim import repeated
from appliance.domain.policy import JUDGE_COPIED, JUDGE_LOOSE_WORDS, JUDGE_NEIGHBOURS
from appliance.domain.text import sentences, words

SHORTEST: Final = 2
"""Words of meaning below which a sentence says too little to be judged."""

MEMO: Final = 1024
"""Verdicts that are kept: an answer's sentences are looked at more than once."""

STARTS: Final = frozenset(("and", "or", "then", ",", ".", ";"))
"""What stands before the verb of a step."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a sentence is supported; if not, what speaks against it."""

    supported: bool
    reason: str = ""
    covers: tuple[str, ...] = ()
    """Sentences of the source that it tells in full."""


@dataclass(frozen=True, slots=True)
class _Reading:
    """A claim laid over some neighbouring sentences."""

    aligned: Aligned
    window: tuple[str, ...]
    wrong: tuple[str, ...]
    """What is said otherwise, whatever the words mean."""
    copied: float
    """Share of the claim's words that stand in the window two or more in a row."""

    @property
    def distance(self) -> int:
        """How far from being supported; 0 is supported."""
        if not self.aligned.covered:
            return 100
        return 4 * len(self.wrong) + 3 * len(self.aligned.missing) + 2 * len(self.aligned.dropped)

    @property
    def reason(self) -> str:
        missing = [f"{token.text} has no counterpart" for token in self.aligned.missing]
        dropped = [f"{token.text} is left out" for token in self.aligned.dropped]
        return "; ".join([*self.wrong, *missing, *dropped])

    def verdict(self) -> Verdict:
        """That it is supported."""
        gone = {self.aligned.source[at].sentence for at in self.aligned.gone}
        return Verdict(True, covers=tuple(p for at, p in enumerate(self.window) if at not in gone))


@lru_cache(MEMO)
def judge(sentence: str, source: str) -> Verdict:
    """Whether ``source`` says what ``sentence`` says. Several sentences are judged as one text."""
    if sentence.rstrip().endswith("?"):
        return Verdict(False, "a question")
    whole = repeated(sentence, source)
    if whole is not None:
        return Verdict(True, covers=(whole,))
    claim = joined(tuple(sentences(sentence)))
    said = [token for token in claim if token.is_content or token.operators]
    if len(said) < SHORTEST or not any(map(may_act, claim)):
        return Verdict(False, "says too little")
    readings = sorted(_readings(sentence, source), key=lambda each: each.distance)
    for reading in readings:
        if reading.distance == 0 or _reworded(reading):
            return reading.verdict()
    return Verdict(False, readings[0].reason if readings else "there is no source")


def _readings(sentence: str, source: str) -> Iterator[_Reading]:
    """The sentence over each run of up to ``JUDGE_NEIGHBOURS`` sentences of the source."""
    parts = sentences(source)
    claim = joined(tuple(sentences(sentence)))
    said = words(sentence)
    for size in range(1, JUDGE_NEIGHBOURS + 1):
        for at in range(len(parts) - size + 1):
            window = tuple(parts[at : at + size])
            rest = joined(tuple(parts[:at] + parts[at + size :]))
            aligned = align(claim, joined(window), rest)
            if not aligned.covered:
                yield _Reading(aligned, window, (), 0.0)
                continue
            told = [word for part in window for word in words(part)]
            blocks = SequenceMatcher(None, said, told, autojunk=False).get_matching_blocks()
            copied = sum(block.size for block in blocks if block.size > 1)
            share = copied / max(1, len(said))
            # "Is sent" may be reworded as "must be sent"; in a copy, "must" is the change.
            wrong = tuple(
                each.what
                for each in objections(aligned)
                if each.kind != "duty" or share >= JUDGE_COPIED.value
            )
            yield _Reading(aligned, window, wrong, share)


def _reworded(reading: _Reading) -> bool:
    """Whether verbs and adverbs that no table joins may be taken for a rewording.

    Who copies a sentence word for word and changes one of them, means the change; who rewords it
    uses words of their own. A thing, a person or a place needs its counterpart all the same.
    """
    missing, dropped = reading.aligned.missing, reading.aligned.dropped
    if reading.wrong or reading.copied >= JUDGE_COPIED.value:
        return False
    if max(len(missing), len(dropped)) > JUDGE_LOOSE_WORDS:
        return False
    if any(t.kind != "word" or t.proper or t.part == "noun" for t in (*missing, *dropped)):
        return False
    verbs = sum(token.part == "verb" for token in dropped)
    # An act of its own is a step that the source has to have. What is left out besides acts limits,
    # unless something stands for it.
    steps = any(token.part == "verb" and _starts(reading, token) for token in missing)
    return (verbs > 0 or not steps) and len(dropped) - verbs <= len(missing)


def _starts(reading: _Reading, token: Token) -> bool:
    return token.at == 0 or reading.aligned.claim[token.at - 1].text in STARTS
