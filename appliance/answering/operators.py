"""Words that turn, limit, permit or oblige. None of them may come, go or change its kind.

Their table is ``operators.txt``. A phrase stands for one or more of them: "unless" is a condition
and a negation.
"""

from __future__ import annotations

from functools import cache
from typing import Final

from appliance.answering.lexicon import table

NEG, COND, CAN, MAY, MUST, SHOULD, WILL = "not", "if", "can", "may", "must", "should", "will"
USUALLY, ALWAYS, OFTEN, SOMETIMES, RARELY = "usually", "always", "often", "sometimes", "rarely"
CERTAIN, ABOUT, WITHIN, BY, LEAST, MORE, LESS = (
    "certainly",
    "about",
    "within",
    "by",
    "at least",
    "more than",
    "less than",
)
BEFORE, AFTER, UNTIL, WHILE, EXCEPT, ONLY, EVEN = (
    "before",
    "after",
    "until",
    "while",
    "except",
    "only",
    "even",
)
ALL, SOME, SEVERAL, MOST, MANY = "all", "some", "several", "most", "many"
WHY, ELSE, EXACT = "because", "otherwise", "exactly"

ALIKE: Final[dict[str, frozenset[str]]] = {
    CAN: frozenset({CAN, MAY}),
    MAY: frozenset({CAN, MAY}),
    COND: frozenset({COND, AFTER, WHILE}),
    AFTER: frozenset({AFTER, COND}),
    WHILE: frozenset({WHILE, COND}),
    BY: frozenset({BY, BEFORE, WITHIN, UNTIL}),
    WITHIN: frozenset({WITHIN, BY, UNTIL}),
    BEFORE: frozenset({BEFORE, BY}),
    UNTIL: frozenset({UNTIL, BY, WITHIN}),
}
"""What may stand for an operator besides itself."""


@cache
def operator_phrases() -> dict[str, tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]]:
    """First word -> (words, operators), the longest phrases first."""
    found: dict[str, list[tuple[tuple[str, ...], tuple[str, ...]]]] = {}
    for line in table("operators.txt"):
        kinds, _, phrases = line.partition(": ")
        for phrase in phrases.split(", "):
            words = tuple(phrase.split())
            found.setdefault(words[0], []).append((words, tuple(kinds.split(" + "))))
    return {
        first: tuple(sorted(of, key=lambda each: len(each[0]), reverse=True))
        for first, of in found.items()
    }


def alike(one: str, two: str) -> bool:
    """Whether two operators say the same."""
    return one == two or two in ALIKE.get(one, frozenset())
