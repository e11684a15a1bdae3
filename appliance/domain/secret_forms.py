"""How each kind of secret looks: functions from a plain text to the stretches that are one.

Patterns are possessive or bounded, so that no customer's text makes one slow.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from typing import Final

Span = tuple[int, int]

# --- cards and accounts ---------------------------------------------------------------------------

_GROUP: Final = re.compile(r"\d+")
_CARD_GAP: Final = re.compile(r"[\s._/·•-]{1,5}")
_CARD_DIGITS: Final = range(13, 20)
_CARD_STARTS: Final = "23456"
"""First digits of the large issuers."""


def cards(text: str) -> Iterator[Span]:
    """Numbers of 13 to 19 digits, however grouped, that pass Luhn's check.

    Numbers standing side by side may be one or several, so that every stretch from the start of a
    group to the end of one is tried; one that is not all there is has to begin as issuers' do.
    """
    for run in _runs(text):
        for first, start in enumerate(run):
            digits = ""
            for last, group in enumerate(run[first:], first):
                digits += group.group()
                if len(digits) >= _CARD_DIGITS.stop:
                    break
                alone = first == 0 and last == len(run) - 1
                if (
                    len(digits) in _CARD_DIGITS
                    and (alone or digits[0] in _CARD_STARTS)
                    and luhn(digits)
                ):
                    yield start.start(), group.end()


def _runs(text: str) -> Iterator[list[re.Match[str]]]:
    """Groups of digits with nothing but a gap between one and the next."""
    run: list[re.Match[str]] = []
    for group in _GROUP.finditer(text):
        if run and not _CARD_GAP.fullmatch(text, run[-1].end(), group.start()):
            yield run
            run = []
        run.append(group)
    if run:
        yield run


def luhn(digits: str) -> bool:
    """Whether the last digit is the check digit of the others; all zeros are no number."""
    total = 0
    for position, digit in enumerate(map(int, reversed(digits))):
        doubled = digit * (1 + position % 2)
        total += doubled - 9 if doubled > 9 else doubled
    return total % 10 == 0 and total > 0


_IBAN: Final = re.compile(
    r"(?<![A-Za-z0-9])[A-Za-z]{2}\d{2}(?:[ -]?[A-Za-z0-9]){11,30}(?![A-Za-z0-9])"
)
_IBAN_SHORTEST: Final = 15


def ibans(text: str) -> Iterator[Span]:
    """International bank account numbers, whose remainder by 97 is 1. Words may follow at once."""
    for match in _IBAN.finditer(text):
        for end in range(match.end(), match.start() + _IBAN_SHORTEST - 1, -1):
            if end < match.end() and text[end].isalnum():
                continue
            number = re.sub(r"[ -]", "", text[match.start() : end]).upper()
            turned = number[4:] + number[:4]
            if int("".join(str(int(sign, 36)) for sign in turned)) % 97 == 1:
                yield match.start(), end
                break


# --- addresses ------------------------------------------------------------------------------------

_LOCAL: Final = r"\w.!#$%&'*+/=?^`{|}~-"
_EMAIL: Final = re.compile(
    rf"""(?:(?<![{_LOCAL}])[{_LOCAL}]++|"[^"\n]{{1,64}}")@(?:[\w-]++(?:\.[\w-]++)+|\[[\w.:]+\])"""
)


def emails(text: str) -> Iterator[Span]:
    """E-mail addresses in any alphabet."""
    return (match.span() for match in _EMAIL.finditer(text))


# --- telephone numbers ----------------------------------------------------------------------------

_NO_PHONE: Final = re.compile(
    r"""
    (?<![\d./-])(?:
        \d{1,2}([./-])\d{1,2}\1(?:\d{4}|\d{2})(?![./-]?\d)  # 24.11.2026
      | \d{4}([./-])\d{1,2}\2\d{1,2}(?![./-]?\d)           # 2026-11-24
      | [0-2]?\d\.[0-5]\d\ ?(?:-|to)\ ?[0-2]?\d\.[0-5]\d(?![.]?\d)  # 08.00-18.00
      | \d{1,3}(?:\.\d{1,3}){3}(?![.]?\d)                  # 192.168.0.17
      | \d{1,3}(?:([,. ])\d{3})(?:\3\d{3})*[.,]\d{2}(?!\d) # 1,299.00
    )
    """,
    re.VERBOSE,
)
_APART: Final = r"[ ()./-]{0,3}"
_PHONES: Final = tuple(
    re.compile(pattern, re.VERBOSE | re.IGNORECASE)
    for pattern in (
        # +49 30 1234567, 0049 30 1234567
        rf"(?<![\w+])(?P<number>(?:\+|00(?=[1-9]))\ ?\(?\d(?:{_APART}\d){{7,14}})(?!\w)",
        # 030 1234567, (020) 7946 0958, 0171/2345678, 01 23 45 67 89
        r"(?<![\w.,\#/+:-])(?P<number>\(?0[1-9]\d{0,4}\)?(?:(?:[\ ./-]{1,3}|(?<=\)))"
        r"\(?\d{2,8}\)?){1,5})"
        r"(?![\w/:-]|[.,]\d)",
        # 555-123-4567, (555) 123-4567, 1-800-555-0199
        r"(?<![\w.,\#/+-])(?P<number>(?:1[\ .-])?(?:\(\d{3}\)[\ .-]?|\d{3}[\ .-])\d{3}[\ .-]\d{4})"
        r"(?![\w-]|[.,]\d)",
        # (11) 91234-5678, 138 0013 8000, 98765 43210
        r"(?<![\w.,\#/+-])(?P<number>\(\d{2,4}\)\ ?\d{4,5}-\d{4}|1\d{2}[\ -]\d{4}[\ -]\d{4}"
        r"|[6-9]\d{4}[\ -]\d{5})(?![\w-]|[.,]\d)",
        # 01712345678, where nothing says that it is another number
        r"(?<![\w.,\#/+:-])(?P<number>0[1-9]\d{8,9})(?![\w-]|[.,]\d)",
        # any number that is said to be one
        r"\b(?:(?:tele)?phone|tel|mobile|cell|handy|whats?app|fax|hotline|my\ number"
        r"|(?:call|ring|text|reach)\ (?:me|us|her|him))\b[^.!?;\n\d+]{0,25}"
        rf"(?P<number>\(?\d(?:{_APART}\d){{5,14}})(?!\w|[.,]\d)",
    )
)
_OTHER_NUMBER: Final = re.compile(
    r"\b(?:order|ticket|invoice|case|reference|ref|serial|part|article|customer|account|id|build"
    r"|version|error|code|sku|item)\b[\w .:]{0,12}[#:]?\s?$",
    re.IGNORECASE,
)
_OTHER_CHARS: Final = 30
_PHONE_DIGITS: Final = range(6, 16)
_NATIONAL_DIGITS: Final = range(8, 14)


def phones(text: str) -> Iterator[Span]:
    """Telephone numbers: international, in the common national forms, or said to be one."""
    others = [match.span() for match in _NO_PHONE.finditer(text)]
    for form, pattern in enumerate(_PHONES):
        for match in pattern.finditer(text):
            first, last = match.span("number")
            digits = sum(map(str.isdigit, match["number"]))
            surely = form in (0, len(_PHONES) - 1)
            if digits not in (_PHONE_DIGITS if surely else _NATIONAL_DIGITS):
                continue
            if any(first < end and start < last for start, end in others):
                continue
            if not surely and _OTHER_NUMBER.search(text, max(0, first - _OTHER_CHARS), first):
                continue
            yield first, last


# --- keys -----------------------------------------------------------------------------------------

_KEYS: Final = tuple(
    re.compile(pattern, flags)
    for pattern, flags in (
        (
            r"-----BEGIN [A-Z0-9 ]{0,30}PRIVATE KEY-----"
            r"(?:.*?-----END [A-Z0-9 ]{0,30}PRIVATE KEY-----|.*)",
            re.DOTALL,
        ),
        (r"\beyJ[\w-]{5,}\.[\w-]{5,}(?:\.[\w-]*)?", 0),  # JSON web tokens
        (
            r"(?<![A-Za-z0-9])(?:sk|pk|rk|gsk|gh[oprsu]|github_pat|glpat|xox[a-z]|hf|ssa|whsec|npm"
            r"|pypi|dop_v1|shp[a-z]{2}|api|key|token|secret)[-_](?=[\w-]*\d|[\w-]{20})[\w-]{8,}",
            0,
        ),
        (r"\b(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{12,}\b", 0),
        (r"\bAIza[\w-]{30,}", 0),
        (r"\bSG\.[\w-]{10,}\.[\w-]{10,}", 0),
        (r"\bBearer[ ]+(?P<key>[^\s,;\"'<>]{3,})", 0),
        (r"\bbearer[ ]+(?P<key>(?=\S*\d|\S{16})[^\s,;\"'<>]{3,})", re.IGNORECASE),
        (
            r"\bauthorization\s*[:=]\s*(?!bearer\b)(?:(?:basic|token|digest)[ ]+)?"
            r"(?P<key>[^\s,;\"'<>]{6,})",
            re.I,
        ),
        (
            r"\b(?:api|access|secret|private|licen[cs]e|activation|product|account|client|auth"
            r"|refresh|session|encryption|signing|webhook)[-_ ]?(?:key|token|secret)\b"
            r"\W{0,3}(?:(?:is|was|=|:)\W{0,3})?(?P<key>(?=[^\s\"']*\d)[^\s,;\"'<>]{6,})",
            re.I,
        ),
        (
            r"\b(?:key|token|secret)[\"']?\s*[:=]\s*[\"']?(?P<key>(?=[^\s\"']*\d)[^\s,;\"'<>]{6,})",
            re.I,
        ),
    )
)
_HEX: Final = re.compile(r"(?<![A-Za-z0-9])(?=[a-fA-F]*\d)(?=\d*[a-fA-F])[0-9a-fA-F]{32,}+(?!\w)")
_BASE64: Final = re.compile(r"(?<![\w+/-])(?:[A-Za-z0-9+/]{32,}+|[\w-]{32,}+)={0,2}(?![\w+/-])")
_CLASSES: Final = (str.islower, str.isupper, str.isdigit)
_MIXED: Final = 0.35
"""Share of neighbours of different class, above which letters and digits are no words."""


def keys(text: str) -> Iterator[Span]:
    """Keys and tokens: known beginnings, what is named as one, and long stretches of noise."""
    for pattern in _KEYS:
        for match in pattern.finditer(text):
            yield match.span("key" if "key" in pattern.groupindex else 0)
    yield from (match.span() for match in _HEX.finditer(text))
    yield from (match.span() for match in _BASE64.finditer(text) if _is_noise(match.group()))


def _is_noise(word: str) -> bool:
    classes = [next((n for n, of in enumerate(_CLASSES) if of(sign)), 3) for sign in word]
    changes = sum(one != other for one, other in pairwise(classes))
    return {0, 1, 2} <= set(classes) and changes > _MIXED * len(word)


# --- passwords ------------------------------------------------------------------------------------

_NAME: Final = (
    r"(?<![^\W_])(?:pass[ -]?(?:word|phrase|code)|pass?w(?:or|ro|r|o)d|passwd|passwort|kennwort"
    r"|pwd|pw|wachtwoord|senha|contrase[nñ]a|mot de passe|pin(?:[ -]?(?:code|number))?)s?(?![^\W_])"
)
_NUMBER_NAME: Final = (
    r"\b(?:pin|pass[ -]?code|cvv2?|cvc2?|otp|tan|(?:security|verification|one-time|sms|2fa|login"
    r"|access|unlock)[ -](?:code|pin|number))s?\b"
)
_CODE: Final = r"(?:\d{2,4}(?:[ -]\d{2,4}){1,3}|\d{3,8})(?![\w-]|[.,]\d)"
_OTHER_CODE: Final = "".join(
    rf"(?<!\b{word}[ -])"
    for word in ("error", "status", "promo", "voucher", "discount", "coupon", "gift", "area", "zip")
)
"""Codes that are no secret."""
_QUOTED: Final = r"\"[^\"\n]{1,80}\"|'[^'\n]{1,80}'|“[^”\n]{1,80}”|«[^»\n]{1,80}»|`[^`\n]{1,80}`"
_END: Final = r"[.,;:?)\]}\"'’”»`]*(?:\s|$)"
_TOKEN: Final = rf"[^\s\"'“”«»`]\S*?(?={_END})"
_NO_SECRETS: Final = (
    "a|about|accepted|again|all|already|also|always|an|and|another|as|asked|at|bad|because|been"
    "|being|blocked|but|by|case|changed|compromised|correct|declined|denied|different|disabled|due"
    "|empty|enabled|encrypted|entered|even|expired|fine|for|forgotten|from|going|gone|good|hacked|hashed|her"
    "|hidden|his|how|if|in|incorrect|insecure|invalid|it|its|just|kept|known|leaked|locked|long|lost"
    "|masked|missing|my|needed|never|new|no|not|now|ok|okay|old|on|only|optional|or|our|out|outdated"
    "|private|public|really|refused|rejected|required|reset|right|safe|same|saved|secure|sent|set"
    "|shared|shorter|short|shown|so|something|still|stolen|stored|strong|supposed|temporary|that|the"
    "|their|then|this|to|too|typed|unavailable|unchanged|unknown|unsafe|updated|used|valid|very"
    "|visible|weak|what|when|where|which|why|with|working|wrong|your"
)
"""Words that say something about a password and are none themselves."""
_VALUE: Final = rf"(?:{_QUOTED}|(?!(?:{_NO_SECRETS})(?:['’]\w+)?!?{_END}){_TOKEN})"
_ODD_VALUE: Final = (
    # With a digit or a sign that words do not have, and not a count such as 3 or 12-character.
    rf"(?:{_QUOTED}|(?=\S{{0,80}}?[\d_@#$%^&*+=~|\\])(?=\S{{3}})"
    rf"(?!\d{{1,2}}(?:-?[a-z]+)?!?{_END}){_TOKEN})"
)
_PASSWORDS: Final = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        # password: X, "pw"="X", pass=X
        rf"(?:{_NAME}|\bpass)[\"']?[ \t]*[:=][ \t]*(?P<secret>{_VALUE})",
        rf"{_NAME}[\"']?[ \t]*[:=]?[ \t]*\n[ \t]*(?P<secret>{_ODD_VALUE})",
        # my password is X, the password for it was X, das Passwort lautet X
        rf"{_NAME}(?: (?:for|of|to|on|at) (?:\w+ ){{0,3}}?\w+)?[ \t]+"
        r"(?:is|was|are|ist|war|lautet|est|es|é)(?:[ \t]*:[ \t]*|[ \t]+)"
        r"(?:(?:still|now|currently|just|actually|really|always|simply)[ \t]+)?"
        rf"(?P<secret>{_VALUE})",
        rf"{_NAME}[^.!?\n]{{1,40}}?[ \t](?:is|was)[ \t]+(?P<secret>{_ODD_VALUE})",
        rf"{_NAME}[ \t]+(?:(?:to|as|of|with|from)[ \t]+)?(?P<secret>{_ODD_VALUE})",
        rf"(?<!\S)(?P<secret>{_ODD_VALUE})[ \t]+(?:is|was|as)[ \t]+(?:my|the|our|his|her)[ \t]+"
        rf"(?:\w+[ \t]+)?{_NAME}",
        # user:password@host, the host too, which may look like an e-mail address with it
        r"://[^\s/:@]+:(?P<secret>[^\s@/]+@[^\s/?#]*)",
        # the passcode for my account is 1234
        rf"{_NUMBER_NAME}[^.!?\n\d]{{0,40}}(?<![\w.,-])(?P<secret>{_CODE})",
        # the code you sent me is 483920, I got code 483920 by text
        rf"{_OTHER_CODE}\bcode (?:(?:that|which) )?(?:i|you|we)(?: have|['’]ve)? (?:just )?"
        rf"(?:got|received|sent|texted)[^.!?\n\d]{{0,25}}(?<![\w.,-])(?P<secret>{_CODE})",
        rf"{_OTHER_CODE}\bcode:? (?P<secret>\d{{4,8}}) (?:by|via|from|in|per) "
        r"(?:an? |the |my |your )?(?:text|sms|e-?mail|app|authenticator)\b",
    )
)


def passwords(text: str) -> Iterator[Span]:
    """Passwords, passphrases and PINs that are said to be one."""
    for pattern in _PASSWORDS:
        for match in pattern.finditer(text):
            yield match.span("secret")


FINDERS: Final[Mapping[str, Callable[[str], Iterator[Span]]]] = {
    "password": passwords,
    "key": keys,
    "iban": ibans,
    "email": emails,
    "card": cards,
    "phone": phones,
}
