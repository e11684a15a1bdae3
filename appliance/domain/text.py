"""Plain text, taken apart: sentences, words and the facts that must never be changed."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

# Sentences end at . ! ? followed by white space and something that can begin a sentence. A dot
# inside "Settings.app", "9.5" or "support@desk.example" has no space behind it; the usual
# abbreviations are listed.
_ABBREVIATIONS: Final = "".join(
    rf"(?<!\b{re.escape(short)})"
    for short in ("e.g.", "i.e.", "etc.", "Mr.", "Mrs.", "Ms.", "Dr.", "No.", "approx.", "incl.")
)
_SENTENCE_END: Final = re.compile(
    rf"(?<=[.!?]){_ABBREVIATIONS}([\"')\]]*)\s+(?=[\"'(\[]*[\w$€£#-])|\n+"
)

_WORD: Final = re.compile(r"[^\W_]+(?:['’][^\W_]+)?")

_FACT: Final = re.compile(
    r"""
    [\w.+-]+@[\w-]+(?:\.[\w-]+)+            # e-mail addresses
  | https?://\S+ | www\.\S+                 # addresses of pages
  | \b[A-Z]{1,6}-?\d[\w-]*                  # error codes, part numbers
  | (?<![\w-])[-−]?[$€£]?\d+(?:[.,:]\d+)*(?:\s?[%$€£])?  # numbers, amounts, times
    """,
    re.VERBOSE,
)
# The right side is looked at, not consumed, so that the middle step of a path joins both its
# neighbours.
_PATH_JOINT: Final = re.compile(r"([\w&'-]+)\s*>\s*(?=([\w&'-]+))")
# Invisible characters hide instructions from people, not from models. Format characters
# (zero-width, bidi controls, tags) are found by their category; these are letters and marks that
# show nothing.
_UNSEEN: Final = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0000-\U000e0fff]"
)
_HIDDEN_CATEGORIES: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn"})
_LINE_BREAK: Final = re.compile("\r\n|[\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")


def clean(text: str) -> str:
    """Text as it is stored and read: composed Unicode, one kind of line break, nothing that cannot
    be seen."""
    text = _UNSEEN.sub("", _LINE_BREAK.sub("\n", text))
    visible = (c for c in text if c in "\n\t" or unicodedata.category(c) not in _HIDDEN_CATEGORIES)
    return unicodedata.normalize("NFC", "".join(visible)).strip()


def is_hidden(character: str) -> bool:
    """Whether ``clean`` drops a character because nobody sees it."""
    if character.isspace() or unicodedata.category(character) == "Cc":
        return False
    return bool(_UNSEEN.match(character)) or unicodedata.category(character) in _HIDDEN_CATEGORIES


def sentences(text: str) -> list[str]:
    """The sentences of a text in order, without the white space between them."""
    parts, start = [], 0
    for end in _SENTENCE_END.finditer(text):
        # Quotes and brackets that close a sentence belong to it.
        parts.append(text[start : end.end(1) if end.group(1) else end.start()])
        start = end.end()
    parts.append(text[start:])
    return [part.strip() for part in parts if part.strip()]


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
