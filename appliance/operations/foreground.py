"""``appliance up``: the appliance's processes under one roof, for a trial without systemd."""

from __future__ import annotations

import sys
import time
from typing import Any

import httpx

from appliance.errors import ApplianceError, Conflict
from appliance.operations.engine_keeper import health
from appliance.operations.locks import hold_lock
from appliance.operations.processes import Child, StopRequested, appliance_command
from appliance.operations.tls import context, require_safe_bind
from appliance.settings import Settings, ensure_folders

LOOK_SECONDS = 0.2
START_TRIES = 3
"""An API that ends this often before it was ever ready will not come up by trying on."""


class Foreground:
    """Starts api, the model's server and the worker, keeps them, ends them together."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._api = Child("api", appliance_command("api"))
        server = "vllm" if settings.backend == "vllm" else "engine"
        self._engine = Child(server, appliance_command(server))
        self._worker = Child("worker", appliance_command("worker"))

    def run(self) -> None:
        """Run until SIGINT or SIGTERM.

        :raises Conflict: the appliance of this data folder is running already.
        :raises ApplianceError: the API does not come up.
        """
        ensure_folders(self._settings)
        # What the API would refuse at its start is refused here once, not three times.
        require_safe_bind(self._settings)
        context(self._settings)
        stop = StopRequested()
        with hold_lock(self._settings.data_dir / "up.lock") as free:
            if not free:
                raise Conflict(
                    f"The appliance in {self._settings.data_dir} is running already.",
                    hint="Stop it, or choose another APPLIANCE_DATA_DIR and APPLIANCE_PORT.",
                )
            try:
                self._keep(stop)
            finally:
                children = (self._api, self._engine, self._worker)
                for child in children:
                    child.terminate()
                for child in children:
                    child.finish()

    def _keep(self, stop: StopRequested) -> None:
        started = time.monotonic()
        ready = told = False
        starts = 0
        while not stop.seen:
            self._engine.keep()
            starts += self._api.keep()
            if not ready:
                if starts > START_TRIES:
                    raise ApplianceError(
                        "The API does not come up.", hint="Its log above says why."
                    )
                ready = self._is_ready()
                if ready:
                    self._say(f"Ready after {time.monotonic() - started:.1f} s: {self.address}")
            else:
                # Not before the API is: of a database that is not usable one process tells.
                self._worker.keep()
            if ready and not told and (capacity := self._capacity()):
                told = True
                self._say(
                    f"This box: about {capacity['customers_at_once']} customers at once, first "
                    f"words in {capacity['first_words']:.1f} s; 'appliance bench' measures more."
                )
            time.sleep(LOOK_SECONDS)
        self._say("Stopping.")

    def _capacity(self) -> dict[str, Any] | None:
        """What the engine found this box to manage, once it has."""
        return health(self._settings.engine_socket).get("capacity")

    @property
    def address(self) -> str:
        """Where a browser finds the chat page."""
        host = self._settings.host
        shown = "127.0.0.1" if host in ("0.0.0.0", "::", "") else host  # noqa: S104 - shown, not bound
        scheme = "https" if self._settings.tls_cert_file else "http"
        return f"{scheme}://{f'[{shown}]' if ':' in shown else shown}:{self._settings.port}/"

    def _is_ready(self) -> bool:
        try:
            transport = httpx.HTTPTransport(uds=str(self._settings.api_socket))
            with httpx.Client(transport=transport, timeout=2.0) as client:
                return client.get("http://appliance/api/v1/ready").status_code == 200
        except (httpx.HTTPError, OSError):
            return False

    @staticmethod
    def _say(line: str) -> None:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()
