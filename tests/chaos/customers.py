"""Customers who ask, rate and ask for people all the time, and write down what they were told.

Nothing here reads the database: an entry says only what a customer can know.
"""

from __future__ import annotations

import random
import threading
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import httpx

from tests.appliance_process import ApplianceProcess, read_events

QUESTIONS = (
    "How do I reset my password?",
    "What is your refund policy?",
    "Why was I charged twice this month?",
    "My app keeps crashing when I try to export",
    "THIS IS UNACCEPTABLE! I DEMAND A REFUND NOW!",
    "Which languages do you support?",
    "Thank you!",
)
TIMEOUT = 60.0
AGAIN_SECONDS = 0.5
"""Pause after a refusal or a lost connection."""
REPEATS = 8
"""How often one thing is sent, always under the same Idempotency-Key."""
TRUTHFUL = frozenset({200, 201, 409, 429, 503, 507})
"""Every status that an appliance in trouble may answer a correct request with; 409 is for one that
is still being answered."""

Kind = Literal["query", "stream", "feedback", "escalate"]


@dataclass(slots=True)
class Entry:
    """One thing a customer wanted, however often it had to be sent."""

    kind: Kind
    user: str
    key: str = field(default_factory=lambda: uuid.uuid4().hex)
    sent: int = 0
    accepted: str | None = None
    """Id of the customer's message, where a stream told it before there was an answer."""
    answer: dict[str, Any] | None = None
    """What was acknowledged."""
    trouble: str = ""
    """What came instead of an answer last."""


class Customers:
    """Some customers, each with one connection and one thing at a time.

    :param count: how many there are.
    :param seed: decides who wants what.
    """

    def __init__(
        self, desk: ApplianceProcess, count: int, *, seed: int = 5, name: str = "c"
    ) -> None:
        self._desk = desk
        self._count = count
        self._seed = seed
        self._name = name
        self._over = threading.Event()
        self.entries: list[Entry] = []
        self.statuses: Counter[int] = Counter()
        self.strange: list[str] = []
        """Answers that no customer should ever get."""

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """They ask until the block ends; those who wait then still get their answer."""
        threads = [
            threading.Thread(target=self._live, args=(number,), name=f"customer-{number}")
            for number in range(self._count)
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._over.set()
            for thread in threads:
                thread.join()

    def again(self) -> Customers:
        """Have them come back after ``at_work`` ended, with questions they did not ask before."""
        self._over.clear()
        self._seed += 1
        self._name += "-"
        return self

    @property
    def acknowledged(self) -> list[Entry]:
        """What was confirmed."""
        return [entry for entry in list(self.entries) if entry.answer is not None]

    def _live(self, number: int) -> None:
        chance = random.Random(self._seed * 1_000 + number)
        visit = 0
        with self._desk.client("customer", timeout=TIMEOUT) as client:
            while not self._over.is_set():
                visit += 1
                try:
                    self._visit(client, f"{self._name}{number}-{visit}", chance)
                except Exception as error:  # a customer that dies unseen asks nothing any more
                    self.strange.append(repr(error))
                    raise

    def _visit(self, client: httpx.Client, user: str, chance: random.Random) -> None:
        """A question, sometimes a second one in the same conversation, a thumb, or a person."""
        kind: Kind = "stream" if chance.random() < 0.3 else "query"
        answer = self._ask(client, kind, user, {"message": chance.choice(QUESTIONS)})
        if answer is None:
            return
        conversation = answer["conversation_id"]
        choice = chance.random()
        if choice < 0.3:
            message = {"message": chance.choice(QUESTIONS), "conversation_id": conversation}
            self._ask(client, "query", user, message)
        elif choice < 0.5:
            thumb = {"message_id": answer["message_id"], "rating": "up"}
            self._send(client, Entry("feedback", user), "/feedback", thumb)
        elif choice < 0.6:
            path = f"/conversations/{conversation}/escalate"
            self._send(client, Entry("escalate", user), path, {"reason": "A person, please."})

    def _ask(
        self, client: httpx.Client, kind: Kind, user: str, body: dict[str, Any]
    ) -> dict[str, Any] | None:
        path = "/query" if kind == "query" else "/query/stream"
        return self._send(client, Entry(kind, user), path, {"user_id": user, **body})

    def _send(
        self, client: httpx.Client, entry: Entry, path: str, body: dict[str, Any]
    ) -> dict[str, Any] | None:
        self.entries.append(entry)
        while entry.sent < REPEATS:
            entry.sent += 1
            try:
                self._once(client, entry, path, body)
            except httpx.TransportError as error:
                entry.trouble = type(error).__name__
            if entry.answer is not None or self._over.wait(AGAIN_SECONDS):
                break
        return entry.answer

    def _once(self, client: httpx.Client, entry: Entry, path: str, body: dict[str, Any]) -> None:
        headers = {"Idempotency-Key": entry.key}
        if entry.kind == "stream":
            self._listen(client, entry, path, body, headers)
            return
        answer = client.post(path, json=body, headers=headers)
        self._note(entry, answer.status_code, answer.text)
        if answer.is_success:
            entry.answer = answer.json()

    def _listen(
        self,
        client: httpx.Client,
        entry: Entry,
        path: str,
        body: dict[str, Any],
        headers: dict[str, str],
    ) -> None:
        with client.stream("POST", path, json=body, headers=headers) as answer:
            if not answer.is_success:
                self._note(entry, answer.status_code, answer.read().decode())
                return
            self._note(entry, answer.status_code, "")
            for name, data in read_events(answer.iter_lines()):
                if name == "analysis":
                    entry.accepted = data["message_id"]
                elif name == "answer":
                    entry.answer = data
                elif name == "error":
                    self._note(entry, data["status"], str(data))

    def _note(self, entry: Entry, status: int, words: str) -> None:
        self.statuses[status] += 1
        if status >= 300:
            entry.trouble = f"{status} {words[:300]}"
        if status not in TRUTHFUL:
            self.strange.append(f"{entry.kind}: {status} {words[:300]}")
