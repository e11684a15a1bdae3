"""Brings the attempts into the sandbox of each unit.

A unit of the same [Service] section, local drop-ins included, starts the knocking instead of the
service: what systemd then builds is the service's own sandbox, and the service itself goes on.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec

from appliance.operations.doctor.services import ask, installed, shown, systemd_is_running
from appliance.operations.silence.knocking import Attempt, Verdict

RUN: Final = Path("/run/systemd/system")
SECONDS: Final = 30.0
"""Longest one unit's attempts may take."""
ACCOUNTED: Final = ("IPIngressBytes", "IPEgressBytes")
_EXECUTED: Final = re.compile(r"^ExecStart=[-@:+!]*(\S+/bin/appliance)\b", re.MULTILINE)

INSTEAD: Final = """[Service]
Type=oneshot
ExecCondition=
ExecStart=
ExecStart={program} doctor --knock
Restart=no
WatchdogSec=0
TimeoutStartSec={seconds}
StandardOutput=truncate:{answer}
StandardError=null
"""


@dataclass(frozen=True, slots=True)
class UnitProof:
    """What was found for one unit. ``accounted`` is what its packets came to since it was started,
    in bytes, by systemd's names."""

    unit: str
    verdict: Verdict
    how: str
    attempts: list[Attempt] = field(default_factory=list)
    accounted: dict[str, int] = field(default_factory=dict)


def prove() -> list[UnitProof]:
    """Every unit that is installed; each takes some seconds.

    Starts a transient unit for each, and removes it again.
    """
    if not systemd_is_running():
        return [UnitProof("(all)", "unproven", "systemd does not run here: there is no sandbox")]
    if os.getuid() != 0:
        return [UnitProof("(all)", "unproven", "only root can enter a sandbox")]
    known = installed()
    if not known:
        return [UnitProof("(all)", "unproven", "no unit of the appliance is installed")]
    return [_proof(unit) for unit in known]


def judge(attempts: list[Attempt]) -> tuple[Verdict, str]:
    """One leak is a leak; refused is what was refused every time."""
    for verdict in ("LEAK", "unproven"):
        found = [a for a in attempts if a.verdict == verdict]
        if found:
            told = "; ".join(f"{a.way} {a.address}: {a.found}" for a in found)
            return ("LEAK" if verdict == "LEAK" else "unproven"), told
    if not attempts:
        return "unproven", "nothing was tried"
    ways = sorted({a.found for a in attempts})
    return "refused", f"{len(attempts)} attempts: {', '.join(ways)}"


def _proof(unit: str) -> UnitProof:
    seen = shown(unit, ACCOUNTED)
    accounted = {name: int(seen[name]) for name in ACCOUNTED if seen.get(name, "").isdigit()}
    text = ask("systemctl", "cat", unit) or ""
    programs = _EXECUTED.findall(text)
    if not programs:
        return UnitProof(unit, "unproven", "it does not start the appliance", [], accounted)
    with _twin(unit, text, programs[-1]) as (twin, answer):
        done = ask("systemctl", "start", twin, seconds=SECONDS)
        told = _read(answer)
        if done is None or told is None:
            why = shown(twin, ["Result"]).get("Result", "unknown")
            how = f"its sandbox could not be entered: {why}"
            return UnitProof(unit, "unproven", how, [], accounted)
    verdict, how = judge(told)
    return UnitProof(unit, verdict, how, told, accounted)


@contextmanager
def _twin(unit: str, text: str, program: str) -> Iterator[tuple[str, Path]]:
    """The unit's double; gone afterwards, whatever happened."""
    twin = unit.replace("appliance-", "appliance-silence-", 1)
    file, folder, answer = RUN / twin, RUN / f"{twin}.d", Path("/run") / f"{twin}.json"
    try:
        file.write_text(f"[Unit]\nDescription=Proof of silence\n{_service(text)}")
        folder.mkdir(exist_ok=True)
        # Behind every drop-in, those for all services as well.
        (folder / "zzz-silence.conf").write_text(
            INSTEAD.format(program=program, answer=answer, seconds=int(SECONDS))
        )
        ask("systemctl", "daemon-reload", seconds=SECONDS)
        yield twin, answer
    finally:
        ask("systemctl", "stop", twin)
        ask("systemctl", "reset-failed", twin)
        file.unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
        answer.unlink(missing_ok=True)
        ask("systemctl", "daemon-reload", seconds=SECONDS)


def _service(text: str) -> str:
    """The [Service] sections of a unit and its drop-ins, in their order. The others say what else
    is started with it."""
    kept, inside = [], False
    for line in text.splitlines():
        if line.startswith("["):
            inside = line.strip() == "[Service]"
        if inside:
            kept.append(line)
    return "\n".join(kept) + "\n"


def _read(answer: Path) -> list[Attempt] | None:
    try:
        found: Any = msgspec.json.decode(answer.read_bytes(), type=list[Attempt])
    except (OSError, msgspec.MsgspecError):
        return None
    return list(found)
