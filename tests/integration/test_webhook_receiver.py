"""The sample receiver of docs/, as a process: what the appliance sends verifies there."""

from __future__ import annotations

import http.client
import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from standardwebhooks.webhooks import Webhook

from appliance.domain.receivers import AllowList, ReceiverGuard
from appliance.domain.webhook_secrets import WebhookSecrets
from appliance.jobs import signing
from appliance.jobs.sending import Sender, resolve
from appliance.settings import HOME
from appliance.storage.records import Endpoint

pytestmark = [pytest.mark.anyio, pytest.mark.loopback]

SECRETS = WebhookSecrets(b"k" * 32)
LIVE, OLDER, LEAKED = "live", "older", "leaked"
PATIENCE = 60.0


class Sample:
    """The receiver, and the lines it prints."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            # -I: nothing but the standard library may be needed.
            [sys.executable, "-I", HOME / "docs" / "webhook_receiver.py", "--port", "0"],
            env=os.environ | {"WEBHOOK_SECRET": f"{SECRETS.shown(LIVE)} {SECRETS.shown(OLDER)}"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._process.stderr is not None
        self.url = self._process.stderr.readline().rpartition(" ")[2].strip() + "/hook"
        self._lines: queue.Queue[str] = queue.Queue()
        for stream, kept in ((self._process.stdout, True), (self._process.stderr, False)):
            threading.Thread(target=self._follow, args=(stream, kept), daemon=True).start()

    def _follow(self, stream: object, kept: bool) -> None:
        for line in stream:  # type: ignore[attr-defined]
            if kept:
                self._lines.put(line)

    def line(self) -> dict[str, object]:
        """The next event it printed."""
        found: dict[str, object] = json.loads(self._lines.get(timeout=PATIENCE))
        return found

    def post(self, headers: dict[str, str], body: bytes) -> int:
        return httpx.post(self.url, headers=headers, content=body, trust_env=False).status_code

    def end(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture(scope="module")
def sample() -> Iterator[Sample]:
    running = Sample()
    yield running
    running.end()


def event(number: int) -> bytes:
    return json.dumps({"id": f"evt-{number}", "text": "zwölf ✓"}, ensure_ascii=False).encode()


def endpoint(url: str, secret: str) -> Endpoint:
    return Endpoint(
        id="hook",
        url=url,
        ca_pem=None,
        active=True,
        failing_since=None,
        secret=secret,
        previous_secret=None,
        previous_secret_expires_at=None,
    )


def sender() -> Sender:
    allow = AllowList.parse(["127.0.0.1:*"])
    return Sender(ReceiverGuard(allow, resolve), SECRETS, timeout=PATIENCE)


async def test_what_the_appliance_sends_verifies_once_whichever_secret_is_live(
    sample: Sample,
) -> None:
    now = datetime.now(UTC)
    for number, secret in enumerate([LIVE, OLDER, LIVE]):
        sent = await sender().send(
            endpoint(sample.url, secret), f"evt-{number}", event(number), now
        )
        assert (sent.status, sent.error) == (204, None)
        assert sample.line() == json.loads(event(number))
    rotated = replace(
        endpoint(sample.url, LEAKED),
        previous_secret=LIVE,
        previous_secret_expires_at=now + timedelta(hours=1),
    )
    sent = await sender().send(rotated, "evt-3", event(3), now)
    assert sent.status == 204
    assert sample.line() == json.loads(event(3))


async def test_the_same_id_is_taken_once(sample: Sample) -> None:
    for number in (10, 10, 11):
        sent = await sender().send(
            endpoint(sample.url, LIVE), f"evt-{number}", event(number), datetime.now(UTC)
        )
        assert sent.status == 204
    assert [sample.line()["id"], sample.line()["id"]] == ["evt-10", "evt-11"]


async def test_what_the_official_library_signs_verifies(sample: Sample) -> None:
    now = datetime.now(UTC)
    headers = {
        "webhook-id": "evt-20",
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(SECRETS.shown(LIVE)).sign("evt-20", now, event(20).decode()),
    }
    assert sample.post(headers, event(20)) == 204
    assert sample.line()["id"] == "evt-20"


@pytest.mark.parametrize(
    "wrong",
    ["secret", "body", "id", "old", "new", "unsigned", "version", "empty", "time", "nonsense"],
)
async def test_what_is_not_the_appliances_is_refused(sample: Sample, wrong: str) -> None:
    at = datetime.now(UTC)
    at += {"old": timedelta(minutes=-10), "new": timedelta(minutes=10)}.get(wrong, timedelta())
    key = SECRETS.key(LEAKED if wrong == "secret" else LIVE)
    headers = signing.headers([key], f"evt-{wrong}", at, event(30))
    body = event(31) if wrong == "body" else event(30)
    if wrong == "id":
        headers["webhook-id"] = "evt-other"
    elif wrong == "unsigned":
        headers = {}
    elif wrong == "version":
        headers["webhook-signature"] = headers["webhook-signature"].replace("v1,", "v1a,")
    elif wrong == "empty":
        headers["webhook-signature"] = "v1,"
    elif wrong == "time":
        headers["webhook-timestamp"] = "soon"
    elif wrong == "nonsense":
        headers["webhook-signature"] = "a,b,c v1 ,, v1,\x7f"
    assert sample.post(headers, body) == 401
    # Nothing of it was used: the next line is that of the next event.
    good = signing.headers([SECRETS.key(LIVE)], f"evt-good-{wrong}", datetime.now(UTC), event(32))
    assert sample.post(good, event(32)) == 204
    assert sample.line()["id"] == "evt-32"


async def test_a_body_that_is_too_large_is_not_read(sample: Sample) -> None:
    url = httpx.URL(sample.url)
    connection = http.client.HTTPConnection(url.host, url.port, timeout=PATIENCE)
    connection.request("POST", "/hook", body=b"x", headers={"Content-Length": "9999999"})
    assert connection.getresponse().status == 413
    connection.close()
