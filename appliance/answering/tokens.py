"""A token: a word, phrase, number, name or mark, with all that the judge knows of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from appliance.answering import operators as op
from appliance.answering.lexicon import lexicon
from appliance.answering.vocabulary import BEING, FILLERS, LIGHT, PEOPLE, SUBJECTS

Kind = Literal["word", "fact", "operator", "filler", "mark"]
Part = Literal["noun", "verb", "other"]


@dataclass(frozen=True, slots=True)
class Token:
    """A word, phrase, number, name or mark of a sentence."""

    text: str
    kind: Kind
    forms: frozenset[str] = frozenset()
    """Base forms; of a phrase, the phrase."""
    senses: frozenset[int] = frozenset()
    stem: str = ""
    operators: tuple[str, ...] = ()
    segment: int = 0
    """Number of the clause or list member it stands in."""
    at: int = 0
    sentence: int = 0
    """Number of the sentence, among neighbouring ones that are read as one."""
    proper: bool = False
    """A name: it may not be reworded."""
    parts: tuple[Token, ...] = ()
    """The words of a phrase."""
    part: Part = "noun"
    """What part of speech it seems to be."""

    @property
    def is_content(self) -> bool:
        """Whether it means something by itself."""
        return self.kind in ("word", "fact")

    @property
    def is_light(self) -> bool:
        """Whether it may be added or left out beside others."""
        return self.kind == "word" and not self.proper and bool(self.forms & LIGHT)

    @property
    def is_person(self) -> bool:
        """Whether it names whom the text is for."""
        return self.kind == "word" and bool(self.forms & PEOPLE)


def part(tokens: Sequence[Token], at: int) -> Part:
    """A guess at the part of speech, from the tables and the words around. "noun" when in doubt:
    that is what is judged most strictly."""
    token = tokens[at]
    if token.kind != "word" or token.proper:
        return "noun"
    letters = _letters(token)
    if letters and letters <= {"a", "d"}:
        return "other"
    if letters == {"v"}:
        return "verb"
    if letters == {"n"}:
        return "noun"
    if token.text.endswith("ly") and "n" not in letters:
        return "other"
    before = tokens[at - 1] if at else None
    after = tokens[at + 1] if at + 1 < len(tokens) else None
    begins = before is None or before.kind == "mark" or before.text in ("and", "or", "please")
    if before is not None and (
        before.text in ("to", "you", "we", "they", "it", "i")
        or set(before.operators) & {op.CAN, op.MAY, op.MUST, op.SHOULD, op.WILL}
    ):
        return "verb"
    if before is not None and before.text in BEING and token.text.endswith(("ed", "ing", "en")):
        return "verb"
    if begins and after is not None and after.text in SUBJECTS and "v" in letters:
        return "verb"
    if (
        before is not None
        and before.is_content
        and (
            (token.text.endswith(("ed", "s", "ing")) and letters != {"n"})
            and after is not None
            and (after.kind in ("mark", "operator") or after.text in FILLERS)
        )
    ):
        return "verb" if "n" not in letters else "noun"
    if before is not None and before.text in BEING and letters != {"n"}:
        return "other"
    return "noun"


def may_act(token: Token) -> bool:
    """Whether it may be what a statement states: a verb, or a word that no table knows."""
    letters = _letters(token)
    verb = token.kind == "word" and ("v" in letters or not letters)
    return verb or bool(token.operators) or token.text in BEING


def _letters(token: Token) -> frozenset[str]:
    """The parts of speech that the table has a word as."""
    parts = lexicon().parts
    return frozenset().union(*(parts.get(form, frozenset()) for form in token.forms))
