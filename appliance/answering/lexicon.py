"""Words as the judge knows them: their base forms, the meanings they share, and what is opposed.

The tables are ``synonyms.txt`` and ``contrasts.txt``, in the language of support articles. A word
that stands in neither is known by its form alone.
"""

from __future__ import annotations

import re
from collections import defaultdict
from functools import cache
from importlib import resources
from typing import Final, NamedTuple


def listed(words: str) -> frozenset[str]:
    """The words of a text."""
    return frozenset(words.split())


IRREGULAR: Final = {
    form: base
    for base, forms in {
        "be": "is are was were been being am",
        "become": "became",
        "begin": "began begun",
        "break": "broke broken",
        "beat": "beaten",
        "bend": "bent",
        "bite": "bit bitten",
        "bleed": "bled",
        "blow": "blew blown",
        "bring": "brought",
        "burn": "burnt",
        "catch": "caught",
        "deal": "dealt",
        "dig": "dug",
        "feed": "fed",
        "feel": "felt",
        "fight": "fought",
        "flee": "fled",
        "fly": "flew flown",
        "hang": "hung",
        "learn": "learnt",
        "lie": "lain lying",
        "light": "lit",
        "melt": "molten",
        "overcome": "overcame",
        "prove": "proven",
        "seek": "sought",
        "shine": "shone",
        "shoot": "shot",
        "shrink": "shrank shrunk",
        "sing": "sang sung",
        "sink": "sank sunk",
        "sleep": "slept",
        "slide": "slid",
        "smell": "smelt",
        "spill": "spilt",
        "spoil": "spoilt",
        "spring": "sprang sprung",
        "stick": "stuck",
        "strike": "struck",
        "sweep": "swept",
        "swell": "swollen",
        "swim": "swam swum",
        "swing": "swung",
        "tear": "tore torn",
        "wake": "woke woken",
        "win": "won",
        "wind": "wound",
        "build": "built",
        "buy": "bought",
        "choose": "chose chosen",
        "come": "came",
        "do": "did done does",
        "draw": "drew drawn",
        "drink": "drank drunk",
        "drive": "drove driven",
        "eat": "ate eaten",
        "fall": "fell fallen",
        "find": "found",
        "forbid": "forbade forbidden",
        "forget": "forgot forgotten",
        "freeze": "froze frozen",
        "get": "got gotten",
        "give": "gave given",
        "go": "went gone",
        "grow": "grew grown",
        "have": "has had",
        "hear": "heard",
        "hide": "hid hidden",
        "hold": "held",
        "keep": "kept",
        "know": "knew known",
        "lay": "laid",
        "lead": "led",
        "leave": "left",
        "lend": "lent",
        "lose": "lost",
        "make": "made",
        "mean": "meant",
        "meet": "met",
        "pay": "paid",
        "ride": "rode ridden",
        "ring": "rang rung",
        "rise": "rose risen",
        "run": "ran",
        "see": "saw seen",
        "sell": "sold",
        "send": "sent",
        "shake": "shook shaken",
        "show": "shown",
        "sit": "sat",
        "speak": "spoke spoken",
        "spend": "spent",
        "stand": "stood",
        "steal": "stole stolen",
        "take": "took taken",
        "teach": "taught",
        "tell": "told",
        "think": "thought",
        "throw": "threw thrown",
        "understand": "understood",
        "wear": "wore worn",
        "withdraw": "withdrew withdrawn",
        "write": "wrote written",
        "child": "children",
        "person": "people persons",
        "man": "men",
        "woman": "women",
        "foot": "feet",
        "tooth": "teeth",
        "thesis": "theses",
        "datum": "data",
        "clothes": "clothes",
    }.items()
    for form in forms.split()
}

_ENDINGS: Final = (
    ("ies", "y"),
    ("ied", "y"),
    ("es", ""),
    ("s", ""),
    ("ed", ""),
    ("ed", "e"),
    ("ing", ""),
    ("ing", "e"),
    ("ly", ""),
    ("ally", ""),
    ("er", ""),
    ("er", "e"),
    ("est", ""),
    ("est", "e"),
    ("ier", "y"),
    ("iest", "y"),
)
_RARE: Final = frozenset(("ly", "ally", "er", "est"))
"""Endings that many short words have by chance: "only" is not "on"."""
_COMPARED: Final = frozenset(("er", "est", "ier", "iest"))
"""Endings of adjectives that are compared; a charger is not more charge."""
_DERIVED: Final = tuple(
    sorted(
        listed(
            "isation ization ation ition ment ance ence ably ibly able ible ness ity ion ive ing "
            "edly ed es s ly e y"
        ),
        key=len,
        reverse=True,
    )
)
_STEM_MIN: Final = 4
"""Letters that are left of a stem at least."""

PLURAL_MIN: Final = 3
"""Letters of the shortest word that is no plural."""
_NOUN: Final = re.compile(r"(?:[ts]ion|ment|ance|ence|ship|ery|[svw]al|age)$")
"""Endings of the nouns that stand beside their verbs in the table."""

PARTICLES: Final = listed("in on off out up down back away over on")
"""Words that stand apart from their verb: "switch the router off"."""

_GOVERNED: Final = PARTICLES | listed("to for of at with from into")


class Lexicon(NamedTuple):
    """The tables, ready to be looked into."""

    senses: dict[str, frozenset[int]]
    """Word or phrase in base form -> the lines of synonyms.txt it stands in."""
    phrases: dict[str, tuple[tuple[str, ...], ...]]
    """First word -> the phrases that begin with it, the longest first."""
    verbs: frozenset[str]
    parts: dict[str, frozenset[str]]
    """Word or phrase -> the letters of the lines it stands in."""
    opposites: frozenset[frozenset[str]]
    known: frozenset[str]
    """Every word of both tables."""


def table(name: str) -> list[str]:
    """The lines of a table that lies beside this file, without remarks."""
    text = resources.files("appliance.answering").joinpath(name).read_text("utf-8")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


@cache
def lexicon() -> Lexicon:
    """The tables, read once."""
    senses: defaultdict[str, set[int]] = defaultdict(set)
    verbs: set[str] = set()
    parts: defaultdict[str, set[str]] = defaultdict(set)
    for number, line in enumerate(table("synonyms.txt")):
        part, _, words = line.partition(" ")
        for word in words.split(", "):
            base = word.replace("-", " ")
            senses[base].add(number)
            parts[base].add(part)
            first, *others = base.split()
            if part == "v" and not _NOUN.search(first) and (not others or others[0] in _GOVERNED):
                verbs.add(first)
    opposites: set[frozenset[str]] = set()
    known = {word for entry in senses for word in (entry, *entry.split())}
    for line in table("contrasts.txt"):
        sides = [side.strip() for side in line.split("|")]
        if len(sides) == 2:
            opposites.add(frozenset(sides))
        known.update(word for side in sides for word in side.split(", "))
    phrases: defaultdict[str, list[tuple[str, ...]]] = defaultdict(list)
    for entry in senses:
        phrase = tuple(entry.split())
        if len(phrase) > 1:
            phrases[phrase[0]].append(phrase)
    return Lexicon(
        {word: frozenset(lines) for word, lines in senses.items()},
        {first: tuple(sorted(of, key=len, reverse=True)) for first, of in phrases.items()},
        frozenset(verbs),
        {word: frozenset(letters) for word, letters in parts.items()},
        frozenset(opposites),
        frozenset(known),
    )


@cache
def bases(word: str) -> frozenset[str]:
    """The base forms a lower-case word may have; itself where no table knows better."""
    known = lexicon().known
    found = {word}
    if word in IRREGULAR:
        found.add(IRREGULAR[word])
    parts = lexicon().parts
    for ending, instead in _ENDINGS:
        least = 3 if ending in _RARE else 2
        if word.endswith(ending) and len(word) - len(ending) >= least:
            base = word[: -len(ending)] + instead
            if ending in _COMPARED and not any(
                "a" in parts.get(adjective, ()) for adjective in (base, base[:-1])
            ):
                continue
            if base in known or base in IRREGULAR.values():
                found.add(base)
            elif len(base) > 3 and base[-1] == base[-2] and base[:-1] in known:
                found.add(base[:-1])
    return frozenset(found)


@cache
def root(word: str) -> str:
    """What is left of a word without what declines, conjugates or derives it."""
    if word.endswith(("ies", "ied")):
        word = word[:-3] + "y"
    if word.endswith(("sal", "val", "wal", "sals", "vals", "wals")) and len(word) > 6:
        word = word.rstrip("s")[:-2]
    if word.endswith("s") and not word.endswith(("ss", "us", "is")) and len(word) > PLURAL_MIN:
        word = word[:-1]
    while True:
        ending = next(
            (e for e in _DERIVED if word.endswith(e) and len(word) - len(e) >= _STEM_MIN), None
        )
        if ending is None:
            return word
        word = word[: -len(ending)]


@cache
def meanings(word: str) -> frozenset[int]:
    """Lines of the table that a word or a phrase in base form stands in."""
    senses = lexicon().senses
    return frozenset().union(*(senses.get(base, frozenset()) for base in bases(word)))


@cache
def opposed(one: frozenset[str], two: frozenset[str]) -> bool:
    """Whether two words, each given by its base forms, are opposites."""
    pairs = lexicon().opposites
    return any(frozenset((a, b)) in pairs for a in one for b in two)


def begins_phrase(forms: frozenset[str]) -> bool:
    """Whether a phrase of the table begins with the word, which then says little by itself."""
    return not forms.isdisjoint(lexicon().phrases)
