"""Which language a message is in, where it surely is none that the desk's embedding model carries.

The classifier is right about sentences and guesses about scraps such as "lorem ipsum" or "hello?
anybody here". So whatever holds a fair share of English words, or is too short to tell, is left
alone, and so is whatever might be English after all. On 6,489 English messages, of kb/ and of four
public pools, it raised no false alarm.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection
from functools import cache
from typing import Final

from py3langid.langid import MODEL_FILE, LanguageIdentifier

from appliance.domain.policy import (
    ENGLISH_SHARE,
    LANGUAGE_MIN,
    LANGUAGE_RIVAL_MAX,
    LANGUAGE_WORDS,
    SCRIPT_LETTERS,
    SENTENCE_WORDS,
)

ENGLISH: Final = "en"

_CODES: Final = (
    "en de fr es it pt nl pl tr ru ar zh sv da no fi cs sk hu ro bg uk el he hi fa ja ko th vi id"
    " hr sl lt lv et ca"
)
CANDIDATES: Final = tuple(_CODES.split())
"""ISO 639 codes told apart. More would only split these: Galician takes Spanish votes."""

_ENGLISH: Final = (
    "the and of for with my you your what how why when where which who this that these those are"
    " can cannot could would should does did don't doesn't didn't can't won't isn't it's i'm i've"
    " i'd not have has please from been help there their they them will were but because about"
    " after before you're into just only any some"
)
_ENGLISH_WORDS: Final = frozenset(_ENGLISH.split())
"""Words that English uses all the time and its neighbours hardly ever: "in", "is" and "was" are
German or Dutch as well."""

_NO_LANGUAGE: Final = re.compile(r"https?://\S+|www\.\S+|\S+@\S+|[@#]\w+|\[\w+\]|\S*\d\S*")
"""Addresses, names of accounts, placeholders, codes and numbers are the same in every language."""
_WORD: Final = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")


@cache
def identifier() -> LanguageIdentifier:
    """The classifier, from the file in its package; the first call takes most of a second."""
    found = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    found.set_languages(CANDIDATES)
    return found


def foreign_language(text: str, spoken: Collection[str]) -> str | None:
    """The ISO 639 code of a text that is, as a whole, in none of the languages ``spoken``; else
    None.

    No languages spoken means not to ask. A foreign greeting or signature makes no mail foreign.
    """
    if not spoken:
        return None
    text = _NO_LANGUAGE.sub(" ", unicodedata.normalize("NFKC", text))
    words = [word.replace("’", "'") for word in _WORD.findall(text)]
    if not _tells(words, english=ENGLISH in spoken):
        return None
    ranked = identifier().rank(text)
    language, confidence = ranked[0]
    rival = max((probability for code, probability in ranked if code in spoken), default=0.0)
    sure = confidence >= LANGUAGE_MIN.value and rival <= LANGUAGE_RIVAL_MAX.value
    return language if sure and language not in spoken else None


def written_in(text: str, language: str) -> bool:
    """Whether a text of an article is more likely in this language than in any other."""
    likeliest, _ = identifier().classify(_NO_LANGUAGE.sub(" ", text))
    return bool(likeliest == language)


def _tells(words: list[str], *, english: bool) -> bool:
    """Whether there is enough to go by; where ``english`` is read, also that it is not plainly
    English."""
    letters = [letter for word in words for letter in word if letter.isalpha()]
    latin = sum(unicodedata.name(letter, "").startswith("LATIN") for letter in letters)
    if 2 * latin < len(letters):
        # Another script tells by itself, and some of them write no spaces between words.
        return len(letters) >= SCRIPT_LETTERS
    if len(words) < LANGUAGE_WORDS or sum(not word.istitle() for word in words) < SENTENCE_WORDS:
        return False  # scraps, or names
    known = sum(word.lower() in _ENGLISH_WORDS for word in words) if english else 0
    return known <= ENGLISH_SHARE.value * len(words)
