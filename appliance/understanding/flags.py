"""What a desk must not overlook in a message about money, whoever answers it."""

from __future__ import annotations

import re

FLAGS: dict[str, re.Pattern[str]] = {
    "refund": re.compile(r"\brefund\w*|\bmoney\s+back\b|\breimburs\w*", re.IGNORECASE),
    "dispute": re.compile(
        r"\bdisput\w*|\bover-?charg\w*|\b(?:wrong(?:ly)?|twice|double)\s+(?:charg|bill)\w*"
        r"|\b(?:charg|bill|debit)\w*(?:\s+\w+){0,3}\s+(?:twice|two\s+times|double)\b",
        re.IGNORECASE,
    ),
    "chargeback": re.compile(r"\bcharge\s?-?backs?\b", re.IGNORECASE),
    "cancel_subscription": re.compile(
        r"\b(?:cancel\w*|terminat\w*|end|stop)\b.{0,40}\b(?:subscription|plan|membership|contract)\b"
        r"|\bunsubscribe\b",
        re.IGNORECASE | re.DOTALL,
    ),
}


def billing_flags(text: str) -> tuple[str, ...]:
    """Names of what the message is about: refund, dispute, chargeback, cancel_subscription."""
    return tuple(name for name, pattern in FLAGS.items() if pattern.search(text))
