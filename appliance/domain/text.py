"""Plain text, taken apart: sentences, words and the facts that must never be changed."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

# Sentences end at . ! ? followed by white space and something that can begin a sentence. A dot
# inside "Settings.app", "9.5" or "support@desk.example" has no space behind it; the usual
# abbreviations are listed.
_ABBREVIATIONS: Final = (
    r"(?<!\be\.g)(?<!\bi\.e)(?<!\betc)(?<!\bMr)(?<!\bMrs)(?<!\bDr)(?<!\bNo)(?<!\bapprox)"
)
_SENTENCE_END: Final = re.compile(
    rf"{_ABBREVIATIONS}(?<=[.!?])[\"')\]]*\s+(?=[\"'(\[]*[\w$€£#-])|\n+"
)

_WORD: Final = re.compile(r"[^\W_]+(?:['’][^\W_]+)?")

_FACT: Final = re.compile(
    r"""
    [\w.+-]+@[\w-]+(?:\.[\w-]+)+            # e-mail addresses
  | https?://\S+ | www\.\S+                 # addresses of pages
  | \b[A-Z]{1,6}-?\d[\w-]*                  # error codes, part numbers
  | [$€£]?\d+(?:[.,:]\d+)*\s?%?             # numbers, amounts, times
    """,
    re.VERBOSE,
)
# The right side is looked at, not consumed, so that the middle step of a path joins both its
# neighbours.
_PATH_JOINT: Final = re.compile(r"([\w&'-]+)\s*>\s*(?=([\w&'-]+))")
# Invisible characters hide instructions from people, not from models: zero-width, bidi controls,
# tags.
_INVISIBLE: Final = re.compile(
    "[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufeff\U000e0000-\U000e007f]"
)


def clean(text: str) -> str:
    """Text as it is stored and read: composed Unicode, no invisible or control characters but line
    breaks."""
    text = _INVISIBLE.sub("", unicodedata.normalize("NFC", text)).replace("\r\n", "\n")
    return "".join(
        c for c in text if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cs", "Co", "Cn")
    ).strip()


def sentences(text: str) -> list[str]:
    """The sentences of a text in order, without the white space between them."""
    return [part.strip() for part in _SENTENCE_END.split(text) if part and part.strip()]


def words(text: str) -> list[str]:
    """Lower-case words and numbers in order."""
    return [w.replace("’", "'") for w in _WORD.findall(text.lower())]


def stem(word: str) -> str:
    """A word without its commonest English endings, so that "charges" and "charged" meet."""
    for suffix in ("ing", "edly", "ed", "ies", "es", "s", "ly", "e"):
        if word.endswith(suffix) and len(word) - len(suffix) >= 3:
            return word[: -len(suffix)]
    return word


def facts(text: str) -> set[str]:
    """Numbers, amounts, codes, addresses: what may be quoted but never altered."""
    found = (re.sub(r"[\s,.:]+$", "", match) for match in _FACT.findall(text))
    return {re.sub(r"\s", "", fact).lower() for fact in found if fact}


def menu_steps(text: str) -> set[tuple[str, str]]:
    """The joints of menu paths such as ``Settings > Security``: the words on both sides of each
    ``>``.

    Only those words surely belong to the path; its first and last step run on into the sentence.
    """
    return {(left.lower(), right.lower()) for left, right in _PATH_JOINT.findall(text)}
