"""A sentence as the judge reads it: words of meaning, numbers, names, and the operators on them."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Final

from appliance.answering import operators as op
from appliance.answering.lexicon import PARTICLES, bases, lexicon, meanings, root
from appliance.answering.spelling import raw_words
from appliance.answering.tokens import Token, part
from appliance.answering.vocabulary import (
    ACTORS,
    BEING,
    DAYS,
    FILLED,
    FILLERS,
    GRATIS,
    MONTHS,
    NEGATED,
    NUMBERS,
    PERIODS,
    POINTING,
    SUBJECTS,
)

MEMO: Final = 4096
"""Sentences whose reading is kept."""
APART: Final = 6
"""Words that may stand between a verb and its particle."""


@lru_cache(MEMO)
def read(sentence: str) -> tuple[Token, ...]:
    """The tokens of one sentence in order."""
    tokens = _Reader(raw_words(sentence)).tokens()
    return tuple(replace(t, part=part(tokens, at)) for at, t in enumerate(tokens))


def _core(words: tuple[str, ...]) -> frozenset[int]:
    """The meanings of a phrase without the small words in front: "on working day"."""
    while words and words[0] in FILLERS:
        words = words[1:]
    return lexicon().senses.get(" ".join(words), frozenset())


class _Reader:
    """One pass over the raw words of a sentence."""

    def __init__(self, raw: list[str]) -> None:
        self.raw = raw
        self.low = [word.lower() for word in raw]
        self.used = [False] * len(raw)
        self.segment = 0

    def tokens(self) -> list[Token]:
        found: list[Token] = []
        at = 0
        while at < len(self.raw):
            if self.used[at]:
                at += 1
                continue
            token, length = self._next(at)
            if token.kind == "mark" or self._opens(token, at):
                self.segment += 1
            found.append(replace(token, segment=self.segment, at=at))
            at += length
        return found

    def _opens(self, token: Token, at: int) -> bool:
        """Whether a clause or list member begins here."""
        if token.kind == "operator":
            return bool(
                {op.COND, op.BEFORE, op.AFTER, op.UNTIL, op.WHILE, op.EXCEPT, op.EVEN, op.WHY}
                & set(token.operators)
            )
        if (
            self.low[at] == "and"
            and self._low(at - 1)[:1].isdigit()
            and self._low(at + 1)[:1].isdigit()
        ):
            return False
        return self.low[at] in ("and", "or", "but", "which", "who", "so", "then")

    def _next(self, at: int) -> tuple[Token, int]:
        word = self.low[at]
        if not word[0].isalnum() and word[0] not in "€$£":
            return Token(word, "mark"), 1
        phrase = self._phrase(at)
        if phrase is not None:
            return phrase
        if self._low(at + 1) == "times" and (word in NUMBERS or word.isdigit()):
            return self._times(NUMBERS.get(word, word)), 2
        if word in NUMBERS and (word != "one" or self._counts(at)):
            return self._fact(NUMBERS[word]), 1
        if any(c.isdigit() for c in word):
            return self._fact(word), 1
        if "@" in word or "." in word or "/" in word:
            return self._fact(word), 1
        single = self._single(at)
        if single is not None:
            return single, 1
        if word in FILLERS:
            return Token(word, "filler"), 1
        return self._word(at), 1

    @staticmethod
    def _fact(text: str) -> Token:
        return Token(text, "fact", frozenset({text}), stem=text)

    @staticmethod
    def _times(number: str) -> Token:
        """ "Three times", which may be told as three of something."""
        return Token(f"{number}x", "fact", frozenset({f"{number}x", number}), stem=f"{number}x")

    def _counts(self, at: int) -> bool:
        """Whether "one" is a number here: something that is counted follows."""
        following = self._low(at + 1)
        if self._low(at - 1) in POINTING:
            return False
        return bool(following) and following not in FILLERS and following[0].isalpha()

    def _word(self, at: int) -> Token:
        word = self.low[at]
        proper = self._is_proper(at)
        negative = self._negated(word) if not proper else None
        if negative is not None:
            return Token(
                word, "word", bases(negative), meanings(negative), root(negative), (op.NEG,)
            )
        permits = word.endswith(("able", "ible")) and bool(
            {word[:-4], word[:-4] + "e"} & lexicon().verbs or {word[:-5]} & lexicon().verbs
        )
        return Token(
            word,
            "word",
            frozenset({word}) | (bases(word) if not proper or word in lexicon().known else set()),
            frozenset() if proper and word not in lexicon().senses else meanings(word),
            root(word),
            # What is refundable can be refunded.
            (op.NEG,) if word in GRATIS else (op.CAN,) if permits else (),
            proper=proper,
        )

    @staticmethod
    def _negated(word: str) -> str | None:
        """What "un..." negates: a state, not an act taken back as in "unlock"."""
        if word in NEGATED:
            return NEGATED[word]
        rest = word[2:]
        known = lexicon().known
        if not word.startswith("un") or len(rest) < 3 or bases(word) & known:
            return None
        return rest if bases(rest) & known else None

    def _is_proper(self, at: int) -> bool:
        word = self.raw[at]
        if len(word) > 1 and word.isupper():
            return True
        return word[0].isupper() and at > 0 and self.raw[at - 1] not in '.!?:"'

    def _low(self, at: int) -> str:
        return self.low[at] if 0 <= at < len(self.low) else ""

    def _matches(self, words: tuple[str, ...], at: int) -> bool:
        return at + len(words) <= len(self.low) and all(
            not self.used[at + i] and (word == self.low[at + i] or word in bases(self.low[at + i]))
            for i, word in enumerate(words)
        )

    def _phrase(self, at: int) -> tuple[Token, int] | None:
        """The longest phrase of several words that begins here."""
        firsts = {self.low[at]} | bases(self.low[at])
        known = [
            (words, kinds)
            for first in firsts
            for words, kinds in op.operator_phrases().get(first, ())
            if len(words) > 1 and self._matches(words, at)
        ]
        operator = max(known, key=lambda each: len(each[0]), default=None)
        meant = [
            words
            for first in firsts
            for words in lexicon().phrases.get(first, ())
            if self._matches(words, at)
        ]
        meant = [words for words in meant if not self._prepositional(words, at)]
        phrase = max(meant, key=len, default=None)
        if operator is not None and len(operator[0]) >= len(phrase or ()):
            length = len(operator[0])
            text = " ".join(self.low[at : at + length])
            return Token(text, "operator", operators=operator[1]), length
        if phrase is not None:
            return self._phrase_token(phrase, range(at, at + len(phrase))), len(phrase)
        return self._parted(at, firsts)

    def _prepositional(self, words: tuple[str, ...], at: int) -> bool:
        """Whether what looks like a particle belongs to the next word: "paid in advance"."""
        if len(words) != 2 or words[1] not in ("in", "on") or words[0] in FILLED:
            return False
        following = self._low(at + 2)
        return following.isalpha() and following not in FILLERS

    def _parted(self, at: int, firsts: set[str]) -> tuple[Token, int] | None:
        """A verb whose particle stands a few words further on."""
        for first in firsts:
            for words in lexicon().phrases.get(first, ()):
                if len(words) != 2 or words[1] not in PARTICLES or words[0] == "be":
                    continue
                for there in range(at + 2, min(at + 2 + APART, len(self.low))):
                    if not self.low[there - 1][0].isalnum() or self.low[there - 1] == "or":
                        break
                    if self.low[there] == words[1] and (
                        words[1] not in ("on", "in") or self._ends(there + 1)
                    ):
                        self.used[there] = True
                        return self._phrase_token(words, (at, there)), 1
        return None

    def _ends(self, at: int) -> bool:
        """Whether no noun follows, so that "on" is a particle and no preposition."""
        return self._low(at) in (
            "",
            "and",
            "or",
            "again",
            "before",
            "after",
            "if",
            "when",
            "then",
        ) or (not self._low(at)[0].isalnum())

    def _phrase_token(self, words: tuple[str, ...], places: range | tuple[int, ...]) -> Token:
        text = " ".join(words)
        parts = tuple(
            self._word(place)
            for place in places
            if self.low[place] not in FILLERS and self.low[place][0].isalpha()
        )
        return Token(
            text,
            "word",
            frozenset({text}),
            lexicon().senses[text] | _core(words),
            text,
            (op.NEG,) if text in GRATIS else (),
            parts=() if text in GRATIS else parts,
        )

    def _single(self, at: int) -> Token | None:
        """An operator of one word, where the words around it let it be one."""
        word, before, after = self.low[at], self._low(at - 1), self._low(at + 1)
        begins = at == 0 or not before[0].isalnum()
        counted = after[:1].isdigit() or after[:1] in tuple("€$£") or after in NUMBERS
        kinds: tuple[str, ...] | None = None
        if word in ("over", "above"):
            kinds = (op.MORE,) if counted else None
        elif word in ("under", "below"):
            kinds = (op.LESS,) if counted else None
        elif word == "by":
            timed = after in DAYS or after in MONTHS or after[:1].isdigit() or after == "then"
            kinds = (op.BY,) if timed else None
        elif word in ("about", "around"):
            kinds = (op.ABOUT,) if counted else None
        elif word in ("as", "since", "so", "while", "whereas"):
            kinds = (op.WHY,) if begins else ((op.WHILE,) if word == "while" else None)
        elif word == "once":
            if after in ("a", "per", "every", "each") and self._low(at + 2) in PERIODS:
                return Token(word, "filler")
            if not (begins or after in SUBJECTS or self._low(at + 2) in BEING):
                return self._times("1")
            kinds = (op.AFTER,)
        elif word == "or":
            kinds = (op.ELSE, op.COND, op.NEG) if before == "," and after in ACTORS else None
        elif word == "just" and counted:
            kinds = (op.ONLY,)
        elif word == "twice":
            return self._times("2")
        elif word == "following":
            kinds = (op.AFTER,) if before != "the" and after in SUBJECTS else None
        elif word == "should" and begins and after in SUBJECTS:
            kinds = (op.COND,)
        elif (word == "may" and (before[:1].isdigit() or after[:1].isdigit())) or (
            word in FILLERS or word in ("second", "minute")
        ):
            return None
        else:
            firsts = {word} | bases(word)
            kinds = next(
                (
                    kinds
                    for first in sorted(firsts, key=len, reverse=True)
                    for words, kinds in op.operator_phrases().get(first, ())
                    if words == (first,)
                ),
                None,
            )
        return None if kinds is None else Token(word, "operator", operators=kinds)
