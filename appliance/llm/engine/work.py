"""What the engine is asked to do, and what it says while it does it. No framework, no llama.cpp."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from appliance.llm.engine.constraints import Choices, Grammar

FinishReason = Literal["stop", "length"]


class CancelFlag:
    """Set by whoever gives up; read between tokens, and by llama.cpp inside a computation.

    It is memory rather than a callback: llama.cpp asks hundreds of times a token whether to go on,
    and a Python callback would take the interpreter's lock each time. See ``Context.watch``.
    """

    def __init__(self) -> None:
        self._bytes = (ctypes.c_char * 2)()

    def set(self) -> None:
        """Give up. Cannot be taken back."""
        self._bytes[0] = b"\x01"

    def is_set(self) -> bool:
        """Whether somebody gave up."""
        return self._bytes.value != b""

    @property
    def address(self) -> int:
        """Where the flag lies: a C string that is empty until it is set."""
        return ctypes.addressof(self._bytes)


@dataclass(frozen=True, slots=True)
class Threads:
    """Threads for a batch of one token, which waits for memory, and for larger ones."""

    single: int
    batch: int


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is chosen. Temperature 0 is greedy; ``seed`` None draws one."""

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class Work:
    """One completion: a tokenized prompt and at most ``max_tokens`` more, up to a ``stop``.

    ``constraint`` is what the completion has to be. ``deadline`` is on the monotonic clock, in
    seconds; work that is not done by then is given up. ``request`` is the id of whoever asked, for
    the log.
    """

    prompt: tuple[int, ...]
    max_tokens: int
    stop: tuple[str, ...] = ()
    sampling: Sampling = field(default_factory=Sampling)
    constraint: Choices | Grammar | None = None
    deadline: float = math.inf
    request: str | None = None


@dataclass(frozen=True, slots=True)
class Counts:
    """Tokens so far. ``cached`` of the ``prompt`` tokens were not evaluated again."""

    prompt: int
    cached: int
    generated: int


@dataclass(frozen=True, slots=True)
class Delta:
    """The next piece of text, whole characters only, never part of a stop string."""

    text: str
    counts: Counts | None = None


@dataclass(frozen=True, slots=True)
class Finished:
    """The completion ended. ``cached`` of the ``prompt`` tokens were not evaluated again.

    ``choice_scores`` are log probabilities of the choices, where the work was to choose.
    """

    reason: FinishReason
    prompt: int
    cached: int
    generated: int
    choice_scores: Mapping[str, float] | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """The engine cannot finish this request; ``code`` is for programs, ``detail`` for people."""

    code: str
    detail: str


Event = Delta | Finished | Failed


@dataclass(slots=True, eq=False)
class Job:
    """Work that somebody waits for: set ``flag`` to give it up, hear of it through ``emit``."""

    work: Work
    flag: CancelFlag
    emit: Callable[[Event], None]


@dataclass(frozen=True, slots=True)
class Ended:
    """How a job ended: its last event, still to be emitted, or None when it was given up."""

    job: Job
    event: Finished | Failed | None
