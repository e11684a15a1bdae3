"""The processor this engine runs on, as Linux describes it."""

from __future__ import annotations

import contextlib
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_CPUINFO: Final = Path("/proc/cpuinfo")


@dataclass(frozen=True, slots=True)
class Processor:
    """Its name, and the instruction sets it has by the kernel's names."""

    name: str
    flags: frozenset[str]

    @property
    def multiplies_bf16(self) -> bool:
        """Whether it multiplies BF16 itself; elsewhere that is emulated, and never the fastest."""
        return bool(self.flags & {"avx512_bf16", "amx_bf16"})


def processor() -> Processor:
    """This machine's; without flags where the kernel lists none."""
    facts: dict[str, str] = {}
    with contextlib.suppress(OSError):
        for line in _CPUINFO.read_text().splitlines():
            name, _, value = line.partition(":")
            facts.setdefault(name.strip(), value.strip())
    flags = facts.get("flags") or facts.get("Features") or ""
    return Processor(facts.get("model name") or platform.machine(), frozenset(flags.split()))
