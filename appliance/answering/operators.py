"""Words that turn, limit, permit or oblige. None of them may come, go or change its kind.

A phrase stands for one or more operators: "unless" is a condition and a negation.
"""

from __future__ import annotations

from functools import cache
from typing import Final

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

_PHRASES: Final[dict[tuple[str, ...], str]] = {
    (
        NEG,
    ): "not|no|never|none|neither|nor|no longer|nothing|nobody|no one|nowhere|fail to|no more|avoid|refrain from|stay away from",
    (COND, NEG): "unless|without",
    (
        NEG,
        CAN,
    ): "forbidden|prohibited|banned|forbid|prohibit|be forbidden|be prohibited|be forbidden to|be prohibited from|be prohibited to|unable to|unable|impossible|not possible",
    (COND,): "if|when|whenever|wherever|in case|in case of|in the event of|in the event that"
    "|provided that|provide that|as long as|so long as|on condition that|on the condition that"
    "|assuming|assuming that|in the case of|for the case that|given that",
    (CAN,): "can|could|able to|be able to|able|possible|be allowed to|be permitted to|be allowed"
    "|be permitted|allowed to|permitted to|allowed|permitted|have the option to|have the option of"
    "|have the possibility to|be free to|be welcome to|let you|allow you to|enable you to"
    "|welcome|be welcome|it be possible to|be possible to|possible to|be entitled to|have the chance to",
    (MAY,): "may|might|perhaps|possibly|maybe|it be possible that|chance be|potentially",
    (MUST,): "must|have to|need to|need|require|be required to|be required|required|necessary"
    "|be necessary to|be obliged to|obligatory|compulsory|mandatory|shall|be sure to|be needed"
    "|be to be|make sure to|be obligatory|needed|essential|have got to|be essential",
    (SHOULD,): "should|ought to|recommend|recommended|recommendation|advisable|it be best to"
    "|we advise you to|we suggest|suggest|be advised to|had better|best to",
    (WILL,): "will|be going to|would",
    (USUALLY,): "usually|normally|generally|typically|as a rule|in most cases|ordinarily"
    "|as standard|mostly|in general|in the normal case|commonly|for the most part|tend to"
    "|most of the time",
    (ALWAYS,): "always|every time|in all cases|in every case|in any case|without exception"
    "|invariably|each time|under all circumstances|at all times",
    (OFTEN,): "often|frequently|many times",
    (SOMETIMES,): "sometimes|occasionally|now and then|from time to time|in some cases|at times",
    (RARELY,): "rarely|seldom|hardly ever|in rare cases|hardly",
    (CERTAIN,): "certainly|definitely|surely|guaranteed|we guarantee|for sure|without fail"
    "|be bound to",
    (ABOUT,): "about|approximately|around|roughly|approx|circa|more or less",
    (
        WITHIN,
    ): "within|inside of|no larger than|no bigger than|no heavier than|no higher than|no older than|do not exceed|not exceed|not be more than|not be larger than|not be longer than|not larger than|in less than|up to|at most|no more than|not more than|maximum of"
    "|a maximum of|maximum|at the most|in the space of|no longer than|not longer than"
    "|in under|as many as|as much as|max|or less|or fewer|or under|in the course of|over the course of",
    (BY,): "no later than|not later than|at the latest|by the end of",
    (LEAST,): "at least|minimum of|a minimum of|or more|no less than|not less than|no fewer than"
    "|minimum|or older|or over|and over|and older|and more|and above|or above|or higher|and higher|at a minimum|or longer|at the minimum|at minimum|upward of",
    (
        MORE,
    ): "more than|exceed|in excess of|upwards of|longer than|beyond|later than|older than|larger than|bigger than|heavier than|higher than|greater than|wider than|taller than",
    (LESS,): "less than|fewer than|shorter than|younger than|smaller than|lower than|lighter than",
    (BEFORE,): "before|prior to|ahead of|in advance of|earlier than",
    (AFTER,): "after|once|as soon as|following|counting from|upon",
    (UNTIL,): "until|till|up until|up to and including",
    (WHILE,): "while|during|throughout|for the duration of|for as long as",
    (EXCEPT,): "except|excluding|apart from|other than|with the exception of|except for"
    "|save for|except that|aside from|but for",
    (ONLY,): "only|solely|exclusively|nothing but|and nothing else|exclusive|merely|purely",
    (
        EVEN,
    ): "even if|even though|even when|even after|although|though|regardless of|irrespective of"
    "|no matter|whether or not",
    (ALL,): "all|every|each|any|everyone|everybody|everything|whatever|anyone|anybody|whichever"
    "|all of|every one of|each of",
    (SOME,): "some|certain|selected|a number of|some of|part of|a few of",
    (SEVERAL,): "several|a few|more than one|multiple|a couple of",
    (MOST,): "most|the majority of|most of|majority",
    (MANY,): "many|numerous|a lot of|plenty of|lot of",
    (WHY,): "because|since|as|so that|so|because of|due to|owing to|thanks to|on account of"
    "|in order to|for this reason|therefore|thus|hence|for that reason|which be why|in order that"
    "|that be why|as a result|for example|for instance|such as|e.g|i.e|this mean|that way|that mean"
    "|which mean",
    (
        ELSE,
        COND,
        NEG,
    ): "otherwise|or else|in all other cases|in any other case|in other cases|if not|failing that",
    (EXACT,): "exactly|precisely|strictly|not only|just|simply|do not forget to|not forget to"
    "|never forget to|not hesitate to|remember to|do not hesitate to|but also|by means of|with the help of|for the purpose of|not matter|with regard to|in question|start on|starting from|starting on|as of|with effect from|as from|effective from|effective|any more|anymore|any longer|at all|still|yet|already|in any way|in this case|in that case|in these cases|to do so|to do this|to do that|beginning on|beginning from|for this purpose|for this|if necessary|of course|on your behalf|for you|on behalf of you"
    "|no problem|as well as|as well|so far|afterwards|subsequently|thereafter|in turn|afterwards|subsequently|after that|thereafter|then",
}

WITHDRAWN: Final = {
    # Held against each other: what one side says and the other does not is judged by ``judge``.
    WHY,
    EXACT,
}
"""Operators that may come and go."""

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
    SOME: frozenset({SOME}),
    MUST: frozenset({MUST}),
}
"""What may stand for an operator besides itself."""


@cache
def operator_phrases() -> dict[str, tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]]:
    """First word -> (words, operators), the longest phrases first."""
    found: dict[str, list[tuple[tuple[str, ...], tuple[str, ...]]]] = {}
    for kinds, text in _PHRASES.items():
        for phrase in text.split("|"):
            words = tuple(phrase.split())
            found.setdefault(words[0], []).append((words, kinds))
    return {
        first: tuple(sorted(of, key=lambda each: len(each[0]), reverse=True))
        for first, of in found.items()
    }


def alike(one: str, two: str) -> bool:
    """Whether two operators say the same."""
    return one == two or two in ALIKE.get(one, frozenset())
