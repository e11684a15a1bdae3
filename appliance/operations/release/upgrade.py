"""The two ways to another release, and the way back from a broken one: each under the lock, each
with a guardian."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from appliance.errors import ApplianceError, Conflict, NotFound
from appliance.operations.locks import hold_lock
from appliance.operations.release import kept
from appliance.operations.release.guardian import guarded
from appliance.operations.release.journal import PHASES, Entry, Journal
from appliance.operations.release.layout import Layout
from appliance.operations.release.transition import Plan, Say, Transition
from appliance.settings import Settings
from appliance.storage import migrate, whole

LOCK_SECONDS: Final = 10.0
"""How long a guardian waits for the lock of the process that it saw die."""


class Undone(ApplianceError):
    """It did not work out; everything is as it was before."""

    code = "upgrade_undone"
    title = "The upgrade was undone"


def upgrade(layout: Layout, settings: Settings, version: str, say: Say) -> Entry:
    """Put a release that lies beside the one in charge in its place. Runs as code of the new one,
    whose migrations these are.

    :raises Conflict: there is nothing to upgrade, or another upgrade is under way.
    :raises Undone: it did not work out.
    """
    layout.require(version)
    with _alone(layout, settings, say):
        before = layout.version
        if before is None:
            raise Conflict(
                "No release is in charge yet.", hint="'install.sh install' puts the first one in."
            )
        if before == version:
            raise Conflict(f"{version} is in charge already.")
        return _carefully(
            layout,
            settings,
            say,
            lambda work: work.run("upgrade", before, version, schema=migrate.head(), plan=Plan),
        )


def rollback(layout: Layout, settings: Settings, say: Say, *, discard_new: bool) -> Entry:
    """Go back to the release before.

    Where nothing was written since, the database is what that release left, byte for byte. Where
    something was, and both releases use one form, the present database stays.

    :param discard_new: give up what was written since.
    :raises NotFound: there is none to go back to.
    :raises Conflict: something was written that the release before cannot read.
    :raises Undone: it did not work out.
    """
    with _alone(layout, settings, say):
        way = kept.way_back(layout, layout.version)
        if way is None:
            raise NotFound(
                f"There is no release to go back to from {layout.version}.",
                hint=f"Releases that are here: {', '.join(layout.present())}.",
            )
        facts: dict[str, Any] = way["facts"]

        def plan() -> Plan:
            if discard_new or whole.digest(settings.resolved_database_url) == facts["content"]:
                return Plan(source=facts["backup"])
            if facts["schema_before"] == facts["schema_after"]:
                return Plan(keep=True)
            raise Conflict(
                f"Something was written since {way['after']} took over, in a form that "
                f"{way['before']} cannot read.",
                hint="Export what you need, then --discard-new; a backup of it is kept.",
            )

        return _carefully(
            layout,
            settings,
            say,
            lambda work: work.run(
                "rollback",
                way["after"],
                way["before"],
                schema=facts["schema_before"],
                plan=plan,
            ),
        )


def recover(
    layout: Layout, settings: Settings, say: Say, *, start: bool = True, patience: float = 0.0
) -> Entry | None:
    """Finish or undo what somebody was killed over. Does nothing where nothing is unfinished.

    :param start: False at boot, where the services are started by whoever waits for this.
    :param patience: seconds to wait for the lock of a process that is dying.
    :return: what was found unfinished.
    :raises Conflict: it is not unfinished but under way.
    """
    if not layout.journal.exists():
        return None
    deadline = time.monotonic() + patience
    while True:
        with hold_lock(layout.lock) as free:
            if free:
                return _recover(layout, settings, say, start=start)
        if time.monotonic() >= deadline:
            raise Conflict("An upgrade is under way.", hint="Wait for its end.")
        time.sleep(0.1)


@contextmanager
def _alone(layout: Layout, settings: Settings, say: Say) -> Iterator[None]:
    """Hold the lock, with nothing unfinished behind."""
    layout.make_notes()
    with hold_lock(layout.lock) as free:
        if not free:
            raise Conflict("An upgrade is under way.", hint="Wait for its end.")
        _recover(layout, settings, say, start=True)
        yield


def _recover(layout: Layout, settings: Settings, say: Say, *, start: bool) -> Entry | None:
    entry = Journal(layout).read()
    if entry is None or entry.is_over:
        return None
    work = Transition(layout, settings, say)
    if entry.outcome is None and entry.phase == PHASES[-1]:
        say(f"finishing the {entry.operation} to {entry.after}")
        work.finish(entry, start=start)
    else:
        work.undo(entry, f"it was killed at {entry.phase}", start=start)
    return entry


def _carefully(
    layout: Layout, settings: Settings, say: Say, run: Callable[[Transition], Entry]
) -> Entry:
    work = Transition(layout, settings, say)
    with guarded(layout):
        try:
            return run(work)
        except (Exception, KeyboardInterrupt) as error:
            entry = work.journal.read()
            if entry is None or entry.is_over:
                raise
            if entry.phase == PHASES[-1]:
                # It is in charge: whatever failed after that is told, and tried again.
                raise
            reason = _reason(error)
            work.undo(entry, f"{entry.phase}: {reason}")
            hint = error.hint if isinstance(error, ApplianceError) else ""
            raise Undone(
                f"The {entry.operation} to {entry.after} was undone, {entry.before} is in charge "
                f"again. {entry.reason}",
                hint=f"{hint} The log of it: {layout.log}".strip(),
            ) from error


def _reason(error: BaseException) -> str:
    if isinstance(error, ApplianceError):
        return error.detail
    return f"{type(error).__name__}: {error}".rstrip(": ")
