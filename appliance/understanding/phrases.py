"""Escalation phrases and plain requests for a person, as patterns.

Phrases match whole words in any case: "issue" holds no "sue" and "illegal" no "legal". One word of
the list is also a name: "Sue Miller" signs a mail, she does not threaten.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from appliance.domain.policy import ESCALATION_PHRASES

_NAME_BEFORE = re.compile(
    r"(?:\b(?:hi|hello|dear|hey|thanks|thank\s+you|regards|cheers|sincerely|best|love|ms|mrs|miss|from|by|"
    r"i\s+am|i['’]m|name\s+is|name['’]s|this\s+is|called|ask\s+for|colleague|with|and)[\s,.!:-]*|[-–—~]\s*)$",
    re.IGNORECASE,
)
_NAME_AFTER = re.compile(
    r"\s+(?!(?:You|Your|Them|The|Us|For|Over|Him|Her)\b)[A-Z][\w'’.-]*|\s+here\b|['’]s\b"
)
_LINE_ALONE = re.compile(r"(?:^|\n)\s*$")


NEARBY = 40
"""Characters around a "Sue" that decide whether it is a name."""


def _pattern(phrases: Iterable[str]) -> re.Pattern[str]:
    alternatives = "|".join(
        r"\s+".join(re.escape(word) for word in phrase.split()) for phrase in phrases
    )
    return re.compile(rf"(?<![\w])(?:{alternatives})(?![\w])", re.IGNORECASE)


_PHRASES = _pattern(ESCALATION_PHRASES)

# Only wordings that ask for nothing else: "how do I add a person to my team" must pass, and what is
# oblique ("is there somebody I could go through this with") is left to the intent head.
_HUMAN = (
    r"(?:(?:real|live|actual|human|living)\s+(?:human|person|people|agent|being|operator|representative|rep)s?"
    r"|humans?|operator|representative)"
)
_STAFF = (
    rf"(?:{_HUMAN}|(?:support\s+|service\s+|qualified\s+)*(?:agent|rep|advis[eo]r|specialist|someone|somebody|"
    r"anyone|anybody|person|supervisor|manager|member\s+of\s+(?:staff|the\s+team|your\s+team)))"
)
_ANYONE = (
    r"someone|somebody|anyone|anybody|one\s+of\s+(?:you|your\s+\w+(?:\s+at\s+the\s+\w+)?)"
    r"|a\s+member\s+of\s+(?:staff|your\s+team|the\s+team)|(?:one\s+of\s+)?your\s+(?:people|staff|colleagues?)"
)
_SOME = r"(?:a|an|the|any|some|one\s+of\s+your|your)"
_NOT_A_FEATURE = (
    r"(?!\s+(?:in|within|inside|from|on)\s+(?:my|our)\b)"
    r"(?!\s+(?:in|inside|within)\s+the\s+(?:app|channel|chat|comments|document|file|project|workspace)\b)"
    r"(?!\s+sample\b)"
    r"(?!\s+(?:account|tool|role|plan|licen[cs]e|seat|app|mode|view|id|number|key)\b)"
)
"""Products have operators and specialists too: "an operator account" is no request for one."""

_PERSON = re.compile(
    rf"""
    (?<!can['’]t\sI\s)(?<!cannot\sI\s)
    \b(?:talk|speak|chat)\s+(?:\w+\s+)?(?:to|with)\s+(?:{_SOME}\s+)?{_STAFF}\b{_NOT_A_FEATURE}
  | \b(?:connect|transfer|put|pass|switch|hand|forward|get)\s+me\s+
        (?:(?:on|over|through|thru|directly)\s+)*
        (?:(?:to|with|on\s+to|onto)\s+)?(?:{_SOME}\s+)?{_STAFF}\b{_NOT_A_FEATURE}
  | \b(?:call|ring|phone|rings|calls|phones)\s+(?:me|us)\s+back\b
  | \b(?:someone|somebody|anyone|anybody|a\s+person|an?\s+agent)\s+(?:\w+\s+)?
        (?:call|ring|phone)\s+(?:me|us)\b
  | \b(?:please|pls|just)\s+(?:call|ring|phone)\s+me\b
  | \b(?:could|can|would|will|might|may)\s+
        (?:{_ANYONE})\s+(?:please\s+)?(?:call|ring|phone)\b
  | \b(?:who|{_ANYONE})\b[^.?!]{{0,60}}\b(?:take|takes|handle|handles|deal|deals|look|looks)\b
        [^.?!]{{0,20}}\b(?:personally|in\s+person|with\s+(?:his|her|their)\s+own\s+eyes)\b
  | \b(?:flesh\s+and\s+blood|with\s+a\s+pulse|living\s+soul)\b
  | \bnot\s+(?:an?|another|the|your)\s+(?:(?:chat|ro)?-?bot|machine|computer)\s*(?:please|pls)?\W*$
  | \b(?:want|need|prefer|request|like)\s+(?:to\s+have\s+|to\s+get\s+)?(?:a|an|some)\s+
        {_HUMAN}\b{_NOT_A_FEATURE}
  | \b(?:want|need|request|arrange|like)\s+(?:to\s+\w+\s+)?a\s+call\s?back\b
  | ^\W*(?:agent|{_HUMAN}|call\s?back)(?:\s+(?:please|now))?\W*$
    """,
    re.IGNORECASE | re.VERBOSE,
)


def escalation_phrase(text: str) -> str | None:
    """The first phrase of the escalation list in the text, in lower case, or None."""
    for match in _PHRASES.finditer(text):
        phrase = " ".join(match.group().lower().split())
        if phrase == "sue" and _is_name(text, match):
            continue
        return phrase
    return None


def asks_for_person(text: str) -> bool:
    """True for wordings that nothing but a request for a human uses. The intent head knows the
    others."""
    return _PERSON.search(text) is not None


_AGREES = re.compile(
    r"^\W*(?:(?:yes|yeah|yep|yup|sure|ok(?:ay)?|please|definitely|absolutely|of\s+course|go\s+ahead|do(?:\s+(?:so|that|it))?|"
    r"pass\s+it\s+on|"
    r"i\s+would|i['’]d\s+like\s+that|that\s+would\s+be\s+\w+|thanks|thank\s+you)\W*)+$",
    re.IGNORECASE,
)
_ONLY_THANKS = re.compile(r"^\W*(?:(?:ok(?:ay)?|thanks|thank\s+you)\W*)+$", re.IGNORECASE)


def agrees(text: str) -> bool:
    """True for a message that says yes and nothing else. "OK, thanks" ends a talk; a bare "OK"
    accepts."""
    if _ONLY_THANKS.match(text) and "thank" in text.lower():
        return False
    return _AGREES.match(text) is not None


def _is_name(text: str, match: re.Match[str]) -> bool:
    """Whether this "Sue" is somebody: capitalised among lower-case words and placed like a name."""
    if match.group() != "Sue" or text.isupper():
        return False
    before = text[max(0, match.start() - NEARBY) : match.start()]
    after = text[match.end() : match.end() + NEARBY]
    if _NAME_AFTER.match(after) or _NAME_BEFORE.search(before):
        return True
    rest_of_line = after.split("\n", 1)[0].strip(" .,!")
    # A line of its own below a mail is a signature; a one-word message is not.
    return not rest_of_line and bool(_LINE_ALONE.search(before)) and bool(before.strip())
