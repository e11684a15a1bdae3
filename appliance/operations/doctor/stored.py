"""What the database holds, read in one transaction, and what of it wants somebody's eye."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from appliance.domain import chain
from appliance.domain.policy import WORKER_STALE_SECONDS
from appliance.errors import ApplianceError
from appliance.llm import remote_access
from appliance.llm.remote import RESULT, RemoteRejected
from appliance.operations.doctor.finding import Finding, Look, State, bad, guarded
from appliance.operations.doctor.services import shown
from appliance.settings import Settings
from appliance.storage.database import Database, Records
from appliance.storage.health import StoredHealth
from appliance.storage.records import AuditEntry
from appliance.understanding.versions import HeadVersions

LATE_WARN: Final = timedelta(minutes=5)
"""How long a delivery may be due before the worker is behind."""
LATELY: Final = timedelta(days=1)
GROWTH_MIN_DAYS: Final = 7
ROOM_WARN_DAYS: Final = 90


@dataclass(frozen=True, slots=True)
class Stored:
    """A snapshot, or why there is none."""

    health: StoredHealth | None
    remote: AuditEntry | None = None
    problem: Exception | None = None

    @classmethod
    async def look(cls, settings: Settings) -> Stored:
        """Read everything once."""

        def work(records: Records) -> tuple[StoredHealth, AuditEntry | None]:
            now = datetime.now(UTC)
            calls = records.audit.list(1, action=RESULT)
            return records.health.look(now, now - LATELY), calls[0] if calls else None

        try:
            database = Database(settings.resolved_database_url)
            try:
                await database.check()
                return cls(*await database.read(work))
            finally:
                await database.aclose()
        except Exception as error:  # a stored time that is none, for one
            return cls(None, problem=error)

    @property
    def newest(self) -> datetime | None:
        """The latest time that is stored."""
        return self.health.newest if self.health else None

    def findings(self, settings: Settings) -> list[Finding]:
        """Everything that the snapshot tells."""
        found = guarded("remote", lambda: [_remote(settings, self.remote)])
        health = self.health
        if health is None:
            assert self.problem is not None
            return [*found, bad("database", self.problem)]
        looks: list[tuple[str, Look]] = [
            ("database", lambda: [_articles(health)]),
            ("disk", lambda: _growth(settings, health)),
            ("records", lambda: [_records(health)]),
            ("quarantine", lambda: [_quarantine(health)]),
            ("learning", lambda: [_learning(settings, health)]),
            ("worker", lambda: [_worker(health)]),
            ("deliveries", lambda: _deliveries(health)),
            ("deliveries", lambda: _receivers(settings)),
            ("sign-ins", lambda: [_sign_ins(health)]),
        ]
        return found + [finding for look in looks for finding in guarded(*look)]


def _articles(health: StoredHealth) -> Finding:
    if not health.articles:
        hint = "Import knowledge with 'appliance kb import FILE'."
        return Finding("database", "warn", "no articles", hint)
    return Finding("database", "ok", f"migrated, {health.articles} articles")


def _growth(settings: Settings, health: StoredHealth) -> list[Finding]:
    file = settings.data_dir / "appliance.db"
    if health.first_conversation is None or settings.database_url or not file.exists():
        return []
    days = (datetime.now(UTC) - health.first_conversation).days
    if days < GROWTH_MIN_DAYS:
        return []
    a_day = file.stat().st_size / days
    room = int(shutil.disk_usage(file.parent).free / max(a_day, 1))
    detail = f"the database grows by {a_day / 2**20:.1f} MiB a day: room for {room} days"
    hint = "Enlarge the volume, or delete conversations that need not be kept."
    return [Finding("disk", "warn" if room < ROOM_WARN_DAYS else "ok", detail, hint)]


def _records(health: StoredHealth) -> Finding:
    """The chain's end; all of it is what 'appliance answers verify' walks."""
    later = chain.Head(health.head.seq, health.head.digest)
    hint = "Run 'appliance answers verify' and keep the database as it is."
    for record in health.records:
        if (record.seq, record.digest) != (later.seq, later.digest) or chain.examine(record):
            detail = f"the answer record {later.seq} is not what was sealed"
            return Finding("records", "bad", detail, hint)
        later = chain.Head(record.seq - 1, record.previous)
    if health.head.seq and not health.records:
        return Finding("records", "bad", "answer records are missing", hint)
    detail = f"{health.head.seq} answer records, the last {len(health.records)} verified"
    return Finding("records", "ok", detail)


def _quarantine(health: StoredHealth) -> Finding:
    if not health.quarantined:
        return Finding("quarantine", "ok", "nothing waits")
    hint = "Decide by 'appliance kb quarantine list'; withheld sentences answer nobody."
    return Finding("quarantine", "warn", f"{health.quarantined} sentences wait", hint)


def _learning(settings: Settings, health: StoredHealth) -> Finding:
    standing = HeadVersions(settings.data_dir / "heads").standing()
    detail = f"version {standing.in_charge} reads, {health.examples} examples taught"
    return Finding("learning", "ok", detail)


def _worker(health: StoredHealth) -> Finding:
    hint = "Start it with 'appliance up' or its unit; nothing is lost meanwhile."
    if health.worker is None:
        return Finding("worker", "warn", "none was ever seen, or the last one ended", hint)
    ago = (datetime.now(UTC) - health.worker.seen_at).total_seconds()
    detail = f"last sign of life {ago:.0f} s ago"
    return Finding("worker", "warn" if abs(ago) > WORKER_STALE_SECONDS else "ok", detail, hint)


def _deliveries(health: StoredHealth) -> list[Finding]:
    counts = health.deliveries
    waiting = counts["pending"] + counts["sending"]
    late = datetime.now(UTC) - health.oldest_due if health.oldest_due else timedelta(0)
    state: State = "warn" if counts["dead"] or late > LATE_WARN else "ok"
    detail = f"{waiting} wait, {counts['dead']} dead letters, {counts['delivered']} delivered"
    if late > LATE_WARN:
        detail += f"; the oldest is due for {late.total_seconds() / 60:.0f} minutes"
    hint = (
        "See 'appliance webhooks deliveries WEBHOOK_ID'; "
        "'appliance webhooks redeliver DELIVERY_ID' sends again."
    )
    findings = [Finding("deliveries", state, detail, hint)]
    if health.webhooks_off:
        off = f"{health.webhooks_off} of {health.webhooks} webhooks switched off after failures"
        hint = "See 'appliance webhooks list'; repair the receiver, then switch it on."
        findings.append(Finding("deliveries", "warn", off, hint))
    return findings


def _receivers(settings: Settings) -> list[Finding]:
    """Receivers that the settings let through and the unit does not."""
    unit = "appliance-worker.service"
    seen = shown(unit, ["IPAddressAllow", "IPAddressDeny"])
    fenced = "0.0.0.0/0" in seen.get("IPAddressDeny", "")
    let_out = [n for n in seen.get("IPAddressAllow", "").split() if n[:4] not in ("127.", "::1/")]
    if not settings.webhook_allow or not fenced or let_out:
        return []
    hint = f"Run 'systemctl edit {unit}': [Service], then IPAddressAllow= with their networks."
    return [Finding("deliveries", "warn", "the worker's unit lets no webhook out", hint)]


def _sign_ins(health: StoredHealth) -> Finding:
    detail = (
        f"{health.failed_sign_ins} failed since the last good ones, {health.locked} accounts "
        f"locked, {health.locked_lately} locks in a day, {health.admin_keys} admin keys"
    )
    state: State = "warn" if health.locked or health.locked_lately else "ok"
    hint = "See 'appliance audit list'; 'appliance accounts unlock NAME' if it was a colleague."
    return Finding("sign-ins", state, detail, hint)


def _remote(settings: Settings, latest: AuditEntry | None) -> Finding:
    if not settings.remote_enabled:
        return Finding("remote", "ok", "off: no customer's word leaves this machine")
    try:
        host = remote_access.admitted(settings).host
    except ApplianceError as error:
        return bad("remote", error)
    detail = f"on: redacted messages go to {host}, model {settings.remote_model}"
    if latest is not None and latest.details.get("outcome") == "rejected":
        why = f"{detail}; the last call was refused: {latest.details.get('reason')}"
        return Finding("remote", "warn", why, RemoteRejected.default_hint)
    return Finding("remote", "ok", detail)
