"""What the appliance counts, for Prometheus: names, labels and help in this one place.

Every appliance has a registry of its own; nothing is counted for the whole process. Labels have few
values, all of them ours: routes are templates, never addresses, and no id or text of a customer is
one. A process counts what it does itself; what other processes do is counted from the database.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

CONTENT_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4

FAST: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
SLOW: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 90)
"""Upper bounds of histograms, in seconds: of stages and storage, and of whole queries."""


class Metrics:
    """All metrics of one appliance. Whoever counts is handed this; ``registry`` takes collectors of
    features that bring their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()

        # --- HTTP -----------------------------------------------------------------------------
        self.requests = self._counter(
            "http_requests", "Requests answered.", "method", "route", "status"
        )
        self.request_seconds = self._histogram(
            "http_request_seconds", "From a request's headers to its last byte.", FAST, "route"
        )
        self.requests_under_way = self._gauge("http_requests_under_way", "Requests being answered.")
        self.limited = self._counter(
            "limited", "Requests refused because a limit was reached.", "limit"
        )
        self.idempotency = self._counter(
            "idempotency", "Requests with an Idempotency-Key, by what came of it.", "result"
        )

        # --- queries --------------------------------------------------------------------------
        self.queries = self._counter("queries", "Queries answered.", "outcome", "mode", "category")
        self.queries_failed = self._counter("queries_failed", "Queries that ended in an error.")
        self.query_seconds = self._histogram(
            "query_seconds", "From a message's arrival to its answer.", SLOW, "mode"
        )
        self.stage_seconds = self._histogram(
            "stage_seconds", "Time in each stage of the graph.", FAST, "stage"
        )
        self.queries_under_way = self._gauge("queries_under_way", "Queries being answered.")
        self.tokens = self._counter("tokens", "Tokens of answers, by kind.", "kind")
        self.agent_failures = self._counter(
            "agent_failures",
            "Agents that fell back to a safe value, and worked-around errors.",
            "agent",
        )
        self.escalations = self._counter("escalations", "Conversations handed over.", "reason")

        # --- the model ------------------------------------------------------------------------
        self.model_waits = self._counter(
            "model_waits", "Calls for a place at the model, by whether one came in time.", "result"
        )
        self.model_wait_seconds = self._histogram(
            "model_wait_seconds", "Waiting for a place at the model.", FAST
        )
        self.engine_state = self._gauge("engine_state", "1 for the engine's state.", "state")
        self.engine_requests = self._gauge(
            "engine_requests", "Requests in the engine: running, or waiting in its queue.", "state"
        )

        # --- what is remembered ---------------------------------------------------------------
        self.storage_seconds = self._histogram(
            "storage_seconds", "Transactions, waiting for a thread included.", FAST, "kind"
        )
        self.storage_waiting = self._gauge(
            "storage_waiting", "Transactions that run or wait for a thread.", "kind"
        )
        self.storage_retries = self._counter(
            "storage_retries", "Transactions begun anew after a lock or a deadlock."
        )
        self.storage_errors = self._counter(
            "storage_errors", "Transactions that failed, by the problem's code.", "code"
        )

        # --- what the monitor saw -------------------------------------------------------------
        self.up = self._gauge("up", "1 when this part was well at the latest look.", "part")
        self.disk_free = self._gauge("disk_free_bytes", "Free space of the data folder's disk.")
        self.disk_reserve = self._gauge(
            "disk_reserve_bytes", "Free space below which the appliance is read-only."
        )
        self.read_only = self._gauge("read_only", "1 while nothing is accepted for storing.")
        self.deliveries = self._gauge(
            "deliveries", "Webhook deliveries in the database, by their state.", "state"
        )

    def exposition(self) -> bytes:
        """Everything in Prometheus' text format."""
        return generate_latest(self.registry)

    def state(self, gauge: Gauge, states: tuple[str, ...], now: str) -> None:
        """Set a gauge with one series for each state: 1 for the present one."""
        for state in states:
            gauge.labels(state).set(state == now)

    def deliveries_seen(self, counts: Mapping[str, int]) -> None:
        """Show how many deliveries are in each state now."""
        self.deliveries.clear()
        for state, count in counts.items():
            self.deliveries.labels(state).set(count)

    def _counter(self, name: str, told: str, *labels: str) -> Counter:
        return Counter(f"appliance_{name}", told, labels, registry=self.registry)

    def _gauge(self, name: str, told: str, *labels: str) -> Gauge:
        return Gauge(f"appliance_{name}", told, labels, registry=self.registry)

    def _histogram(
        self, name: str, told: str, bounds: tuple[float, ...], *labels: str
    ) -> Histogram:
        return Histogram(f"appliance_{name}", told, labels, buckets=bounds, registry=self.registry)
