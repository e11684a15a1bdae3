"""A receiver of the appliance's webhooks, to start from. Needs nothing but Python 3.10 or newer.

    WEBHOOK_SECRET=whsec_... python webhook_receiver.py --port 9000

It verifies each delivery by Standard Webhooks 1.0.0 and prints its body, one line of JSON each.
What a receiver of your own has to do as well:

- verify over the bytes as they came, before anything reads them as JSON;
- refuse what is older or newer than a few minutes, so that nobody can send a recording again;
- know ids it has seen: a delivery comes at least once, so it may come twice, with the same id. This
  one remembers them while it runs; keep them where you keep what you do with the event;
- answer 2xx within seconds and do the work afterwards. Any other answer is tried again for days;
  410 says that you want no more.

While a secret is rotated put both into WEBHOOK_SECRET, with a blank between.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import hashlib
import hmac
import json
import os
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOLERANCE_SECONDS = 300
BODY_MAX_BYTES = 1_000_000
IDS_KEPT = 10_000
READ_SECONDS = 10


def verify(secrets: Sequence[str], headers: Mapping[str, str], body: bytes, now: float) -> str:
    """The id of a delivery that really comes from the appliance.

    :param headers: by names in lower case.
    :raises ValueError: it does not, or is too old; nothing of it may be used.
    """
    event_id = headers.get("webhook-id", "")
    timestamp = headers.get("webhook-timestamp", "")
    if not event_id or not (timestamp.isascii() and timestamp.isdigit()):
        raise ValueError("the headers are missing")
    if abs(now - int(timestamp)) > TOLERANCE_SECONDS:
        raise ValueError("the time is off")
    signed = b".".join((event_id.encode(), timestamp.encode(), body))
    right = [
        base64.b64encode(
            hmac.digest(base64.b64decode(secret.removeprefix("whsec_")), signed, hashlib.sha256)
        )
        for secret in secrets
    ]
    for signature in headers.get("webhook-signature", "").split():
        version, _, value = signature.partition(",")
        # compare_digest takes the same time wherever the first difference is.
        if version == "v1" and any(hmac.compare_digest(value.encode(), each) for each in right):
            return event_id
    raise ValueError("no signature is right")


class Seen:
    """The latest ids."""

    def __init__(self) -> None:
        self._ids: OrderedDict[str, None] = OrderedDict()
        self._lock = threading.Lock()

    def add(self, event_id: str) -> bool:
        """True for an id that is new."""
        with self._lock:
            if event_id in self._ids:
                return False
            self._ids[event_id] = None
            if len(self._ids) > IDS_KEPT:
                self._ids.popitem(last=False)
            return True

    def forget(self, event_id: str) -> None:
        """Take it as new when it comes again."""
        with self._lock:
            self._ids.pop(event_id, None)


class Receiver(BaseHTTPRequestHandler):
    """Answers 204 to what is verified, 401 to what is not."""

    secrets: Sequence[str] = ()
    seen = Seen()
    timeout = READ_SECONDS

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit()) or int(length) > BODY_MAX_BYTES:
            self._answer(413)
            return
        body = self.rfile.read(int(length))
        headers = {name.lower(): value for name, value in self.headers.items()}
        try:
            event_id = verify(self.secrets, headers, body, time.time())
        except ValueError as error:
            self.log_error("refused: %s", error)
            self._answer(401)
            return
        if self.seen.add(event_id):
            try:
                sys.stdout.write(json.dumps(json.loads(body), ensure_ascii=False) + "\n")
                sys.stdout.flush()
            except BaseException:
                self.seen.forget(event_id)  # nothing was done with it: it has to come again
                raise
        self._answer(204)

    def _answer(self, status: int) -> None:
        self.close_connection = True
        self.send_response(status)
        self.send_header("Connection", "close")
        self.end_headers()


def main() -> None:
    parser = argparse.ArgumentParser(description="Verify and print webhooks.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=9000)
    options = parser.parse_args()
    Receiver.secrets = os.environ.get("WEBHOOK_SECRET", "").split()
    if not Receiver.secrets:
        parser.error("put the secret into WEBHOOK_SECRET")
    with ThreadingHTTPServer((options.host, options.port), Receiver) as server:
        sys.stderr.write(f"listening on http://{options.host}:{server.server_port}\n")
        sys.stderr.flush()
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()


if __name__ == "__main__":
    main()
