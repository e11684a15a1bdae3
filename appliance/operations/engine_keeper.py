"""Keeps one engine serving: restarts it when it dies, and switches models by starting the new one
beside the old.

Clients connect to ``engine.sock``, a link. An engine listens on a socket of its own; the link is
moved to it in one step, so that a client meets the old engine or the new one, never none.
"""

from __future__ import annotations

import contextlib
import os
import socket as sockets
import sys
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import httpx
import msgspec

from appliance.errors import ApplianceError, Conflict
from appliance.llm import weights
from appliance.logs import get_logger
from appliance.operations import notify
from appliance.operations.locks import hold_lock
from appliance.operations.processes import Child, StopRequested
from appliance.settings import Settings

log = get_logger()

LOOK_SECONDS = 0.25
GRACE_SECONDS = 0.5
SWITCH_SECONDS = 600.0
"""Longest time a new engine may load before the switch is given up."""


class Switch(msgspec.Struct):
    """A switch as it was asked for and how it went. One file, written by the asker, then by the
    keeper."""

    id: str
    model: str
    state: Literal["asked", "done", "failed"]
    detail: str = ""


@dataclass(slots=True)
class _Engine:
    model: str
    socket: Path
    child: Child


class EngineKeeper:
    """The process behind ``appliance engine``. Parses no weights itself: its children do."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._number = 0
        self._current: _Engine | None = None
        self._announced = False

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT.

        :raises Conflict: another keeper serves this data folder.
        """
        stop = StopRequested()
        with hold_lock(self._settings.data_dir / "engine.lock") as free:
            if not free:
                raise Conflict("The engine of this appliance is running already.")
            self._keep(stop)

    def _keep(self, stop: StopRequested) -> None:
        _remove_leftovers(self._settings.sockets)
        switch_file(self._settings).unlink(missing_ok=True)
        self._current = self._launch(weights.active(self._settings).name)
        self._link(self._current)
        try:
            while not stop.seen:
                self._look(stop)
                time.sleep(LOOK_SECONDS)
        finally:
            notify.stopping()
            self._end(self._current)
            self._settings.engine_socket.unlink(missing_ok=True)

    def _look(self, stop: StopRequested) -> None:
        current = self._current
        assert current is not None
        current.child.keep()
        state = health(current.socket).get("status")
        if state is not None:
            if not self._announced:
                notify.ready()
                self._announced = True
            notify.watchdog()
        asked = read_switch(self._settings)
        if asked is not None and asked.state == "asked":
            self._switch(asked, stop)

    def _switch(self, asked: Switch, stop: StopRequested) -> None:
        """Start the new engine, move clients over once it is well, end the old one."""
        old = self._current
        if (
            old is not None
            and old.model == asked.model
            and health(old.socket).get("status") == "ok"
        ):
            self._answer(asked, "done")
            return
        log.info("model_switch", model=asked.model)
        new = self._launch(asked.model)
        problem = self._wait_until_well(new, stop)
        if problem is not None:
            self._end(new)
            log.error("model_switch_failed", model=asked.model, detail=problem)
            self._answer(asked, "failed", problem)
            return
        self._link(new)
        self._current = new
        try:
            weights.activate(self._settings, asked.model)
        except OSError as error:
            log.error("choice_not_saved", model=asked.model, error=str(error))
        self._answer(asked, "done")
        # Connections that were made before the link moved are still being accepted.
        time.sleep(GRACE_SECONDS)
        self._end(old)

    def _answer(self, asked: Switch, state: Literal["done", "failed"], detail: str = "") -> None:
        """Tell the asker, unless somebody asked for something else meanwhile: that comes next."""
        present = read_switch(self._settings)
        if present is None or present.id == asked.id:
            try:
                _write_switch(self._settings, Switch(asked.id, asked.model, state, detail))
            except ApplianceError as error:
                # A full disk must not take the engine down with the message.
                log.error("switch_not_answered", detail=error.detail)

    def _wait_until_well(self, engine: _Engine, stop: StopRequested) -> str | None:
        """None when it serves; else why it does not."""
        deadline = time.monotonic() + SWITCH_SECONDS
        while time.monotonic() < deadline and not stop.seen:
            notify.watchdog()
            if self._current is not None:
                self._current.child.keep()
            if engine.child.exit_status is not None:
                return f"The engine ended with status {engine.child.exit_status}; its log says why."
            seen = health(engine.socket)
            if seen.get("status") == "ok":
                return None
            if seen.get("status") == "failed":
                return str(seen.get("detail") or "The engine could not load the weights.")
            time.sleep(LOOK_SECONDS)
        return "The engine was stopped." if stop.seen else "The engine did not load in time."

    def _launch(self, model: str) -> _Engine:
        self._number += 1
        socket = self._settings.sockets / f"engine-{os.getpid()}-{self._number}.sock"
        command = [
            sys.executable,
            "-m",
            "appliance.llm.engine",
            "--model",
            model,
            "--socket",
            str(socket),
        ]
        engine = _Engine(model, socket, Child(f"engine {model}", command))
        engine.child.start()
        return engine

    def _link(self, engine: _Engine) -> None:
        """Point ``engine.sock`` at an engine, in one step."""
        temporary = self._settings.sockets / ".engine.sock.new"
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(engine.socket.name)
        temporary.replace(self._settings.engine_socket)

    @staticmethod
    def _end(engine: _Engine | None) -> None:
        if engine is not None:
            engine.child.terminate()
            engine.child.finish()
            engine.socket.unlink(missing_ok=True)


def health(socket: Path) -> dict[str, Any]:
    """What an engine says of itself; empty when nobody answers."""
    try:
        # Asked with a plain socket first: httpx leaves one open when nobody listens.
        with sockets.socket(sockets.AF_UNIX) as probe:
            probe.connect(str(socket))
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(socket)), timeout=2.0) as client:
            answer: dict[str, Any] = client.get("http://engine/health").json()
            return answer
    except (httpx.HTTPError, OSError, ValueError):
        return {}


def switch_file(settings: Settings) -> Path:
    """Where a switch is asked for."""
    return settings.data_dir / "engine" / "switch.json"


def ask_switch(settings: Settings, model: str) -> str:
    """Ask the running keeper for a model; ``read_switch`` tells under the id returned how it
    went."""
    asked = Switch(uuid.uuid4().hex, model, "asked")
    _write_switch(settings, asked)
    return asked.id


def read_switch(settings: Settings) -> Switch | None:
    """The latest switch, or None."""
    with contextlib.suppress(OSError, msgspec.MsgspecError):
        return msgspec.json.decode(switch_file(settings).read_bytes(), type=Switch)
    return None


def _write_switch(settings: Settings, switch: Switch) -> None:
    file = switch_file(settings)
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary = file.with_suffix(f".{os.getpid()}")
        temporary.write_bytes(msgspec.json.encode(switch))
        temporary.replace(file)
    except OSError as error:
        raise ApplianceError(f"{file} cannot be written: {error.strerror}.") from error


def _remove_leftovers(folder: Path) -> None:
    """Sockets of engines that were killed. The keeper is alone: a second one finds the first's
    lock."""
    for path in folder.glob("engine-*.sock"):
        path.unlink(missing_ok=True)
