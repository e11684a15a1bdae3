"""How single settings are written, and which values are refused.

Lists are words in a variable and lists in the file. What is refused is told with ``ValueError``.
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
import shlex
from typing import Any
from urllib.parse import urlsplit

QUEUE_SCHEMES = ("redis", "rediss", "valkey", "valkeys", "postgresql")


def shell_words(given: Any) -> Any:
    """Words as a shell reads them."""
    return shlex.split(given) if isinstance(given, str) else given


def listed(given: Any) -> Any:
    """Words between spaces or commas."""
    return given.replace(",", " ").split() if isinstance(given, str) else given


def language_codes(given: Any) -> Any:
    """Two letters each; none for ``any``."""
    codes = listed(given)
    if codes == ["any"]:
        return []
    if isinstance(codes, list) and not all(
        isinstance(code, str) and re.fullmatch("[a-z]{2}", code) for code in codes
    ):
        raise ValueError("Languages are ISO 639-1 codes of two letters, such as en de.")
    return codes


def pauses(given: list[int]) -> list[int]:
    """Seconds between attempts."""
    if any(pause < 1 for pause in given):
        raise ValueError("A pause is at least one second.")
    return given


def queue(url: str) -> str:
    """Where a queue is, or nothing."""
    if url and urlsplit(url).scheme not in QUEUE_SCHEMES:
        raise ValueError(f"A queue is one of {', '.join(QUEUE_SCHEMES)}.")
    return url


def on_this_machine(url: str) -> str:
    """The root of a server that only this machine reaches, without a slash at its end."""
    # vLLM knows no keys and customers' words go there: by an address, so that no name service
    # decides where it is.
    with contextlib.suppress(ValueError):
        parts = urlsplit(url)
        if (
            ipaddress.ip_address(parts.hostname or "").is_loopback
            and parts.port
            and url.rstrip("/") == f"http://{parts.netloc}"
            and "@" not in parts.netloc
        ):
            return url.rstrip("/")
    raise ValueError("vLLM has to be on this machine: http://127.0.0.1:PORT")
