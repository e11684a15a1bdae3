"""One way to write what may be written in several: contractions, amounts, times."""

from __future__ import annotations

import re
from typing import Final

from appliance.answering.vocabulary import MONEY

_TOKEN: Final = re.compile(
    r"""
    [\w.+-]+@[\w-]+(?:\.[\w-]+)+
  | https?://[^\s,;)]+ | www\.[^\s,;)]+
  | \b[\w-]+(?:\.[\w-]+)*\.(?:com|org|net|example|test)\b[/\w-]*
  | (?<![\w-])-\d+(?:[.,:]\d+)*
  | [€$£]\d+(?:[.,]\d+)*
  | \d+(?:[.,:]\d+)*(?:%|€|£|\$)
  | \b[A-Z]+-?\d[\w-]*
  | \d+(?:[.,:/]\d+)*(?:am|pm)?
  | [^\W\d_]+(?:'[^\W\d_]+)?\d*
  | [,;:.!?()>–—"]
    """,
    re.VERBOSE,
)


def raw_words(sentence: str) -> list[str]:
    """Words, numbers, addresses and marks as they are written, once they are written one way."""
    found = (match.group() for match in _TOKEN.finditer(_plain(sentence)))
    return [word.rstrip(".,") or word for word in found]


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
    text = re.sub(r"\b([Ll])et ((?:\w+ ){1,3}?)know\b", _inform, text)
    text = re.sub(
        r"\b(?:keep|keeps|kept|stop|stops|stopped|prevent\w*) ((?:(?!away)\w+ ){1,3})from\b",
        r"not \1",
        text,
    )
    text = re.sub(r"\bprevious day\b", "day before", text)
    text = re.sub(r"(?<=\d)[,  ](?=\d{3}\b)", "", text)
    text = re.sub(r"(\d)\s*([ap])\.?\s?m\b\.?(?!\w)", r"\1\2m", text)
    for sign, names in MONEY.items():
        amount = r"\d+(?:[.,]\d+)*"
        text = re.sub(rf"(?:(?:{names})\s?)({amount})", rf"{sign}\1", text)
        text = re.sub(rf"(?<![€$£\w])({amount})\s?(?:{names})(?!\w)", rf"{sign}\1", text)
    text = re.sub(r"%(\d+(?:[.,]\d+)*)", r"\1%", text)
    text = re.sub(r"([€$£]\d+)[.,]00\b", r"\1", text)
    return re.sub(r"(?<=[^\W_])-(?=[^\W\d_])|(?<=\d)[-–](?=\d)", " ", text)


def _inform(let: re.Match[str]) -> str:
    return f"{'I' if let.group(1) == 'L' else 'i'}nform {let.group(2).strip()}"
