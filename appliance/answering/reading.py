"""A sentence as the judge reads it: words of meaning, numbers and names, and the operators on them."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final, Literal

from appliance.answering import operators as op
from appliance.answering.lexicon import PARTICLES, bases, lexicon, listed, meanings, root

Kind = Literal["word", "fact", "operator", "filler", "mark"]
Part = Literal["noun", "verb", "other"]

MEMO: Final = 4096
"""Sentences whose reading is kept."""
APART: Final = 4
"""Words that may stand between a verb and its particle."""

FILLERS: Final = frozenset(
    "a an the i you we they he she it me us them him her my your our their his its mine yours "
    "ours theirs this that these those here there who whom whose which what and or but both either "
    "whether how be do have am is are was were been being does did has had having doing "
    "in on at to for of from with by as into onto via upon about over under above below around "
    "please also too simply then so well such own even than per yourself themselves itself one "
    "ones through using via across among between within plus where since while case hence anything something someone anybody somebody anyone if's".split()
)
"""Words that carry no meaning of their own here."""
LIGHT: Final = frozenset(
    "get make take give use go come let want wish way thing happen occur available apply "
    "process procedure step item order button page menu tab field screen section option symbol icon "
    "date time period amount sum fee charge price cost case receive become stay remain find "
    "following place able simple easy easily kind type able current present correct relevant "
    "respective ok thank like would lasting lasts weigh weighing keep know tell mean means together home mains leave put".split()
) | {"take place", "be held", "be there"}
"""Words that say little: they may be added, and left out beside others that are said."""
PEOPLE: Final = frozenset(
    "customer client user patient passenger traveller traveler buyer shopper caller guest visitor "
    "rider subscriber consumer purchaser person people anyone everyone somebody someone individual "
    "holder cardholder parent participant applicant candidate donor driver tenant learner listener viewer reader owner's".split()
)
"""Whom an article speaks of where an answer says "you"."""
GRATIS: Final = frozenset(
    "free|free of charge|at no cost|at no charge|for free|without charge|complimentary|gratis|"
    "free of cost|without cost|at no extra cost|at no additional cost|at no extra charge|"
    "at no additional charge|costless".split("|")
)
"""What costs nothing: a fee and a negation."""
NEGATED: Final = {
    "invalid": "valid",
    "incorrect": "correct",
    "incomplete": "complete",
    "inactive": "active",
    "inappropriate": "appropriate",
    "incompatible": "compatible",
    "ineligible": "eligible",
    "insufficient": "sufficient",
    "irreversible": "undo",
    "irrevocable": "revoke",
    "illegible": "legible",
    "unable": "able",
}
"""What other prefixes than "un" negate."""
NUMBERS: Final = {
    word: str(number)
    for number, word in enumerate(
        "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
        "fifteen sixteen seventeen eighteen nineteen twenty".split()
    )
} | {
    "thirty": "30",
    "forty": "40",
    "fifty": "50",
    "sixty": "60",
    "seventy": "70",
    "eighty": "80",
    "ninety": "90",
    "hundred": "100",
    "thousand": "1000",
    "dozen": "12",
}
_MONEY: Final = {
    "€": r"€|EUR|euros?",
    "$": r"\$|USD|dollars?",
    "£": r"£|GBP|pounds?",
    "%": r"%|percent|per cent",
}
_MONTHS: Final = frozenset(
    "january february march april may june july august september october november december".split()
)
_PERIODS: Final = listed("hour day week month quarter year")
_DAYS: Final = frozenset("monday tuesday wednesday thursday friday saturday sunday".split())
_FILLED: Final = frozenset("fill key type log sign plug switch turn hand send check".split())
_BEING: Final = frozenset(
    "is are was were be been being becomes become gets get keep keeps".split()
)
_POINTING: Final = frozenset(
    "first second third next last other another new old this that the each".split()
)
_SUBJECTS: Final = frozenset(
    "the a an your our you we they it this that these those my their its no he she one every each "
    "all any".split()
)

_TOKEN: Final = re.compile(
    r"""
    [\w.+-]+@[\w-]+(?:\.[\w-]+)+
  | https?://[^\s,;)]+ | www\.[^\s,;)]+ | \b[\w-]+(?:\.[\w-]+)*\.(?:com|org|net|example|test)\b[/\w-]*
  | [€$£]\d+(?:[.,]\d+)*
  | \d+(?:[.,:]\d+)*(?:%|€|£|\$)
  | \b[A-Z]+-?\d[\w-]*
  | \d+(?:[.,:/]\d+)*(?:am|pm)?
  | [^\W\d_]+(?:'[^\W\d_]+)?\d*
  | [,;:.!?()>–—"]
    """,
    re.VERBOSE,
)


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


def _plain(text: str) -> str:
    """The text with one way to write contractions, amounts and times."""
    text = text.replace("’", "'").replace("“", '"').replace("”", '"').replace("−", "-")
    text = re.sub(r"\b([Cc])an(?:'t|not)\b", r"\1an not", text)
    text = re.sub(r"\b([Ww])on't\b", r"\1ill not", text)
    text = re.sub(r"n't\b", " not", text)
    text = re.sub(r"\b(\w+)'ll\b", r"\1 will", text)
    text = re.sub(r"\b(\w+)'(?:re|s|ve|d)\b", r"\1", text)
    text = re.sub(r"\bnon-", "not ", text, flags=re.IGNORECASE)
    text = re.sub(r"\b(\w{2,})-free\b", r"without \1", text)
    text = re.sub(r"\bas (?:long|late) as (?=\S*\d|two|three|four|five|six)", "up to ", text)
    text = re.sub(r"\b[Ee]mail", "e-mail", text)
    text = re.sub(r"\bprevious day\b", "day before", text)
    text = re.sub(r"(?<=\d)[,  ](?=\d{3}\b)", "", text)
    text = re.sub(r"(\d)\s*([ap])\.?\s?m\b\.?(?!\w)", r"\1\2m", text)
    for sign, names in _MONEY.items():
        amount = r"\d+(?:[.,]\d+)*"
        text = re.sub(rf"(?:(?:{names})\s?)({amount})", rf"{sign}\1", text)
        text = re.sub(rf"(?<![€$£\w])({amount})\s?(?:{names})(?!\w)", rf"{sign}\1", text)
    text = re.sub(r"%(\d+(?:[.,]\d+)*)", r"\1%", text)
    text = re.sub(r"([€$£]\d+)[.,]00\b", r"\1", text)
    return re.sub(r"(?<=[^\W_])-(?=[^\W\d_])|(?<=\d)[-–](?=\d)", " ", text)


@lru_cache(MEMO)
def read(sentence: str) -> tuple[Token, ...]:
    """The tokens of one sentence in order."""
    raw = [
        match.group().rstrip(".,") or match.group() for match in _TOKEN.finditer(_plain(sentence))
    ]
    tokens = _Reader(raw).tokens()
    return tuple(replace(t, part=_part(tokens, at)) for at, t in enumerate(tokens))


def _part(tokens: list[Token], at: int) -> Part:
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
    if before is not None and before.text in _BEING and token.text.endswith(("ed", "ing", "en")):
        return "verb"
    if begins and after is not None and after.text in _SUBJECTS and "v" in letters:
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
    if before is not None and before.text in _BEING and letters != {"n"}:
        return "other"
    return "noun"


def _core(words: tuple[str, ...]) -> frozenset[int]:
    """The meanings of a phrase without the small words in front: "on working day"."""
    while words and words[0] in FILLERS:
        words = words[1:]
    return lexicon().senses.get(" ".join(words), frozenset())


def may_act(token: Token) -> bool:
    """Whether it may be what a statement states: a verb, or a word that no table knows."""
    letters = _letters(token)
    return (
        token.text in _BEING
        or bool(token.operators)
        or (token.kind == "word" and ("v" in letters or not letters))
    )


def _letters(token: Token) -> frozenset[str]:
    """The parts of speech that the table has a word as."""
    parts = lexicon().parts
    return frozenset().union(*(parts.get(form, frozenset()) for form in token.forms))


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
            return self._fact(NUMBERS.get(word, word) + "x"), 2
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

    def _counts(self, at: int) -> bool:
        """Whether "one" is a number here: something that is counted follows."""
        following = self._low(at + 1)
        if self._low(at - 1) in _POINTING:
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
        if len(words) != 2 or words[1] not in ("in", "on") or words[0] in _FILLED:
            return False
        following = self._low(at + 2)
        return following.isalpha() and following not in FILLERS

    def _parted(self, at: int, firsts: set[str]) -> tuple[Token, int] | None:
        """A verb whose particle stands a few words further on."""
        for first in firsts:
            for words in lexicon().phrases.get(first, ()):
                if len(words) != 2 or words[1] not in PARTICLES:
                    continue
                for there in range(at + 2, min(at + 2 + APART, len(self.low))):
                    if not self.low[there - 1][0].isalnum() or self.low[there - 1] in ("and", "or"):
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
            timed = after in _DAYS or after in _MONTHS or after[:1].isdigit() or after == "then"
            kinds = (op.BY,) if timed else None
        elif word in ("about", "around"):
            kinds = (op.ABOUT,) if counted else None
        elif word in ("as", "since", "so", "while", "whereas"):
            kinds = (op.WHY,) if begins else ((op.WHILE,) if word == "while" else None)
        elif word == "once":
            if after in ("a", "per", "every", "each") and self._low(at + 2) in _PERIODS:
                return Token(word, "filler")
            if not (begins or after in _SUBJECTS or self._low(at + 2) in _BEING):
                return self._fact("1x")
            kinds = (op.AFTER,)
        elif word == "twice":
            return self._fact("2x")
        elif word == "following":
            kinds = (op.AFTER,) if before != "the" and after in _SUBJECTS else None
        elif word == "should" and begins and after in _SUBJECTS:
            kinds = (op.COND,)
        elif word == "may" and (before[:1].isdigit() or after[:1].isdigit()):
            return None
        elif word in ("second", "minute") or word in FILLERS:
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
