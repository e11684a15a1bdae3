"""One release takes another's place, as a whole or not at all.

Every phase first writes down what undoing it takes. Nothing is ever half in charge: the door is
shut and services are stopped while link, units and database change; what is started then is on
trial, with that door still shut, until one write to the journal makes it the release in charge.
Until that write the one before comes back, with the very bytes that it left; from it on the new one
stays.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from appliance.errors import ApplianceError
from appliance.operations.release import kept, units
from appliance.operations.release.data import Data, Facts, data_of
from appliance.operations.release.journal import PHASES, Entry, Journal, Operation
from appliance.operations.release.layout import Layout, write_durably
from appliance.operations.release.probe import Baseline, measure, probe
from appliance.operations.release.services import (
    LOOK_SECONDS,
    Services,
    services_of,
    wait_until_quiet,
)
from appliance.operations.release.serving import version_serving, wait_until_ready
from appliance.settings import Settings
from appliance.storage import migrate, whole

DOOR_SECONDS: Final = 30.0
"""Longest the port may take to open once it may."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """What becomes of the database.

    :param source: a backup that takes its place; without one the present database is migrated.
    :param keep: it stays as it is.
    """

    source: Facts | None = None
    keep: bool = False


class Transition:
    """What happens between two releases of one installation, forward and back. The lock is held by
    whoever uses it."""

    def __init__(self, layout: Layout, settings: Settings, say: Say = lambda line: None) -> None:
        self._layout = layout
        self._settings = settings
        self._url = settings.resolved_database_url
        self._say = say
        self.journal = Journal(layout)
        self._services: Services = services_of(layout, settings)
        self._data: Data = data_of(self._url)

    # --- forward ---------------------------------------------------------------------------------

    def run(
        self,
        operation: Operation,
        before: str,
        after: str,
        *,
        schema: str | None,
        plan: Callable[[], Plan],
    ) -> Entry:
        """Put ``after`` in the place of ``before``.

        :param schema: the form of the database that ``after`` expects.
        :param plan: decides what becomes of the database; asked once while customers still write,
            so that a refusal disturbs nobody, and again when nobody writes any more.
        :raises ApplianceError: what went wrong; nothing is undone yet.
        """
        entry = self.journal.begin(operation, before, after)
        self._say(f"{operation} from {before} to {after}")
        self._layout.require(before)
        self._data.preflight(self._layout.notes)
        plan()
        folder = self._layout.backups / entry.id
        folder.mkdir(mode=0o700, parents=True)
        baseline = measure(self._settings)
        self.journal.note(
            entry,
            was_running=self._services.is_running(),
            schema_before=migrate.current(self._url),
            schema_after=schema,
            units_before=_texts(units.installed(self._layout)),
            baseline=baseline.as_facts(),
        )

        self._enter(entry, "quiesce", quiesced_at=time.time())
        # From here on, not only for the trial: whatever is written now would be lost either way.
        write_durably(self._layout.probation, entry.id.encode() + b"\n")
        self._services.stop()
        wait_until_quiet(self._settings)

        self._enter(entry, "backup")
        self._back_up_files(folder)
        backup = self._data.back_up(folder)

        self._enter(entry, "migrate", backup=backup)
        chosen = plan()
        if not chosen.keep:
            self._data.stage(chosen.source)

        self._enter(entry, "switch")
        if not chosen.keep:
            self._data.take_over(backup)
        self._layout.switch(after)
        self._services.install_units(units.shipped(self._layout, after))
        content = whole.digest(self._url)

        self._enter(entry, "start", content=content)
        self._services.start()
        wait_until_ready(self._services, self._settings)

        self._enter(entry, "probe")
        self._probe(after, schema, baseline)

        self._enter(entry, "commit")
        self.finish(entry)
        return entry

    def _probe(self, version: str, schema: str | None, baseline: Baseline) -> None:
        probe(
            self._layout,
            self._settings,
            self._services,
            version=version,
            schema=schema,
            baseline=baseline,
        )

    def finish(self, entry: Entry, *, start: bool = True) -> None:
        """What follows the commit; may be done again.

        :param start: False at boot, where whoever waits for this starts the services.
        """
        self._layout.probation.unlink(missing_ok=True)
        # Its units are others than those that were enabled, also where the boot starts them.
        self._services.enable()
        if start:
            # Also where what ran on trial was killed together with the upgrade.
            self._services.start()
            wait_until_ready(self._services, self._settings)
            if self._wait_for_door():
                downtime = round(time.time() - entry.facts["quiesced_at"], 2)
                entry.facts.setdefault("downtime_seconds", downtime)
            else:
                shut = f"customers do not get in at port {self._settings.port}"
                entry.reason = f"After {DOOR_SECONDS:.0f} s {shut}: see {self._services.log}"
                self._say(entry.reason)
        kept.remember(self._layout, entry)
        for gone in kept.prune(self._layout, self._data):
            self._say(f"removed {gone}")
        self.journal.end(entry, "done")

    # --- back ------------------------------------------------------------------------------------

    def undo(self, entry: Entry, reason: str, *, start: bool = True) -> None:
        """Put code, units and data back, and start the release that was in charge. May be done
        again, also when it was killed in between: what was put back once is left alone, because
        from then on the release that was in charge may have served, and what customers wrote is
        its own.

        :param start: False at boot, where whoever waits for this starts it.
        """
        entry.reason = entry.reason or reason
        self.journal.end(entry, "undoing")
        reached = PHASES.index(entry.phase)
        self._say(f"undoing, because: {entry.reason}")
        if not entry.facts.get("put_back"):
            self._put_back(entry, reached, stop=start)
            # Before the door may open.
            self.journal.note(entry, put_back=True)
        self._layout.probation.unlink(missing_ok=True)
        was_running = entry.facts.get("was_running", False)
        if was_running and reached >= PHASES.index("switch"):
            # Units that only this release has were disabled with their removal.
            self._services.enable()
        if start and was_running and reached >= PHASES.index("quiesce"):
            self._services.start()
            wait_until_ready(self._services, self._settings)
            found = version_serving(self._settings)
            if found != entry.before:
                raise ApplianceError(f"{found} answers instead of {entry.before}.")
        self.journal.end(entry, "undone")
        # What undoing took the data from is no backup of anything any more.
        shutil.rmtree(self._layout.backups / entry.id, ignore_errors=True)

    def _put_back(self, entry: Entry, reached: int, *, stop: bool) -> None:
        if "backup" not in entry.facts:
            # Nothing was changed yet. Perhaps because somebody would not stop, who may go on.
            if stop and reached >= PHASES.index("quiesce"):
                with contextlib.suppress(ApplianceError):
                    self._services.stop()
        else:
            if stop:
                self._services.stop()
            wait_until_quiet(self._settings)
            self._data.restore(entry.facts["backup"])
            if reached >= PHASES.index("start"):
                self._restore_files(self._layout.backups / entry.id)
        if reached >= PHASES.index("switch"):
            self._layout.switch(entry.before)
            self._services.install_units(_bytes(entry.facts["units_before"]))

    def _enter(self, entry: Entry, phase: str, **facts: Any) -> None:
        self.journal.enter(entry, phase, **facts)
        self._say(f"  {phase}")

    # --- files -----------------------------------------------------------------------------------

    def _back_up_files(self, folder: Path) -> None:
        """What the desk has learnt, which a start of another release may change; the settings, for
        whoever wants to compare."""
        for name, source in self._files():
            # A link is not the desk's work, and where it leads is not the desk's to read.
            if source.is_dir() and not source.is_symlink():
                shutil.copytree(source, folder / name, symlinks=True, dirs_exist_ok=True)

    def _restore_files(self, folder: Path) -> None:
        target, saved = self._settings.data_dir / "heads", folder / "heads"
        if not saved.is_dir():
            return
        # Root works here in a folder of the services' user: it follows none of its links. The owner
        # is asked of what no undo removes, so that one that was killed in between knows it, too.
        owner = self._settings.data_dir.stat()
        if target.is_symlink():
            target.unlink()
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(saved, target, symlinks=True)
        if os.geteuid() == 0:
            for path in (target, *target.rglob("*")):
                os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)

    def _files(self) -> list[tuple[str, Path]]:
        return [
            ("heads", self._settings.data_dir / "heads"),
            ("etc", self._layout.configuration),
        ]

    def _wait_for_door(self) -> bool:
        """Whether customers get in."""
        host = self._settings.host
        shown = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
        deadline = time.monotonic() + DOOR_SECONDS
        while time.monotonic() < deadline:
            try:
                socket.create_connection((shown, self._settings.port), 1.0).close()
            except OSError:
                time.sleep(LOOK_SECONDS)
            else:
                return True
        return False


def _texts(content: dict[str, bytes]) -> dict[str, str]:
    return {name: value.decode("utf-8", "surrogateescape") for name, value in content.items()}


def _bytes(content: dict[str, str]) -> dict[str, bytes]:
    return {name: value.encode("utf-8", "surrogateescape") for name, value in content.items()}
