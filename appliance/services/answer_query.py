"""THE STORY: a customer's message comes in, an answer goes out, and both are remembered.

Three steps. ``accept`` stores the message before any thinking, so that nothing a customer wrote is
lost. The graph thinks. ``finish`` stores everything the answer changes in one transaction: the
reply, the message's state, the conversation's topic and status, the events, the answer's record. A
crash between the two leaves a message marked as received, which is shown as interrupted and can be
sent again: with its ``Idempotency-Key`` the same message goes on, without one a new one is stored.

What only helps lies beside it: how many come in (``query_admission``), a request that comes again
(``query_claims``), what a message is understood by (``query_context``), what an answer tells about
itself (``query_result``), what others hear of it (``query_events``).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from appliance.domain import policy
from appliance.domain.once import Once
from appliance.domain.ports import Emit
from appliance.domain.query import Query
from appliance.domain.record import Described, describe
from appliance.domain.redaction import SECRETS, Redacted, redact
from appliance.domain.state import QueryState, Run
from appliance.domain.text import clean
from appliance.errors import InvalidInput, NotFound
from appliance.graph.build import SupportGraph
from appliance.logs import bind_query, get_logger
from appliance.metrics import Metrics
from appliance.services import query_events
from appliance.services.access import Principal, checked_user_id
from appliance.services.once import Idempotency
from appliance.services.provenance import Provenance
from appliance.services.query_admission import Admission
from appliance.services.query_claims import QueryClaims
from appliance.services.query_context import in_context
from appliance.services.query_result import (
    Metadata,
    QueryResult,
    count,
    metadata_of,
    repeat,
    result_of,
)
from appliance.storage.database import Database, Records
from appliance.storage.records import Conversation, Message

T = TypeVar("T")

log = get_logger()

TITLE_CHARS = 80
QUERY_LIMIT = 128
"""Queries under way where nobody says how many."""


@dataclass(frozen=True, slots=True)
class Ask:
    """A message as it arrives, checked by ``AnswerQuery``."""

    user_id: str
    message: str
    conversation_id: str | None = None


@dataclass(slots=True)
class Accepted:
    """A stored message on its way through the graph. ``reply`` is there when the very request was
    answered before."""

    conversation: Conversation
    message: Message
    reply: Message | None = None
    once: Once | None = None
    started: float = field(default_factory=time.perf_counter)


@dataclass(frozen=True, slots=True)
class Thought:
    """What the graph made of a query, before anything of it is stored."""

    state: QueryState
    metadata: Metadata
    record: Described


class AnswerQuery:
    """Answers queries.

    :param model_name: the name of the model in charge at this moment, or None.
    :param provenance: what answers are made with, for their records.
    :param idempotency: claims requests that come with a key.
    :param limit: queries under way in this process; more are refused before they are stored.
    """

    def __init__(
        self,
        database: Database,
        graph: SupportGraph,
        model_name: Callable[[], str | None],
        provenance: Provenance | None = None,
        *,
        idempotency: Idempotency | None = None,
        metrics: Metrics | None = None,
        limit: int = QUERY_LIMIT,
    ) -> None:
        self._database = database
        self._graph = graph
        self._model_name = model_name
        self._provenance = provenance or Provenance()
        self._metrics = metrics or Metrics()
        self._admission = Admission(limit, self._metrics)
        self._claims = QueryClaims(
            idempotency or Idempotency(database, 24.0), lambda: self._admission.retry_after
        )
        self._under_way: set[asyncio.Task[QueryResult]] = set()
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def accept(self, ask: Ask, principal: Principal, once: Once | None = None) -> Accepted:
        """Check and store a message, without the secrets in it: what is not kept cannot leak.

        :param once: what its Idempotency-Key says: the message that the same request brought
            before is taken up again, where it was left.
        :raises InvalidInput: it is empty or too long.
        :raises Forbidden: the principal may not speak for that user.
        :raises NotFound: the conversation is unknown, somebody else's, or another user's.
        :raises RateLimited: as many queries as the process takes are under way, or as many
            messages of the conversation as may wait.
        :raises KeyReused: the key came with another request before.
        :raises UnderWay: the same request is being answered.
        """
        text, user_id = _checked(ask)
        principal.speaks_for(user_id)
        with self._admission.arriving(ask.conversation_id):
            kept = redact(text, SECRETS)
            claim = object()

            def work(records: Records) -> Accepted:
                self._claims.free(claim)  # of an attempt that the database rolled back
                if once is not None:
                    before = self._claims.brought_before(records, once, claim)
                    if before is not None:
                        return Accepted(*before, once)
                accepted = _accept(records, principal, user_id, kept, ask.conversation_id)
                if once is not None:
                    accepted.once = once
                    self._claims.brings(records, once, accepted.message, claim)
                return accepted

            try:
                return await self._database.write(work)
            except BaseException:
                self._claims.free(claim)
                raise

    def start(
        self, accepted: Accepted, emit: Emit, left: asyncio.Event
    ) -> asyncio.Task[QueryResult]:
        """Answer in a task of its own: a customer who leaves does not undo what was accepted.

        :param left: set it when nobody waits any more; the model stops, the articles finish the
            answer.
        """
        if accepted.reply is not None:
            return asyncio.create_task(repeat(accepted.conversation, accepted.reply, emit))
        task = asyncio.create_task(self._answer(accepted, Run(emit, left)))
        self._under_way.add(task)
        self._admission.began(accepted.conversation.id)

        def ended(task: asyncio.Task[QueryResult]) -> None:
            self._under_way.discard(task)
            self._claims.ended(accepted.message.id)
            seconds = time.perf_counter() - accepted.started
            self._admission.ended(accepted.conversation.id, seconds)
            if not task.cancelled() and task.exception() is not None:
                self._metrics.queries_failed.inc()

        task.add_done_callback(ended)
        return task

    async def _answer(self, accepted: Accepted, run: Run) -> QueryResult:
        bind_query(accepted.message.id)
        # One after the other within a conversation: each answer builds on the topic the one before
        # left.
        async with self._locks.setdefault(accepted.conversation.id, asyncio.Lock()):
            return await self._answer_next(accepted, run)

    async def _answer_next(self, accepted: Accepted, run: Run) -> QueryResult:
        query, knowledge = await self._database.read(
            lambda records: _to_think_of(records, accepted)
        )
        thought = await self.think(query, knowledge, run, started=accepted.started)
        state, metadata = thought.state, thought.metadata
        reply, conversation = await self._database.write(
            lambda records: _finish(records, accepted, thought)
        )
        count(self._metrics, state["category"], metadata)
        log.info(
            "query_answered",
            conversation=conversation.id,
            category=state["category"],
            sentiment=state["sentiment"],
            outcome=metadata.outcome,
            mode=metadata.mode,
            escalation_reason=metadata.escalation_reason,
            seconds=metadata.processing_time,
            tokens=asdict(metadata.tokens),
        )
        return result_of(conversation, reply)

    async def think(
        self, query: Query, knowledge: tuple[int, str], run: Run, *, started: float
    ) -> Thought:
        """Put a query through the graph and store nothing.

        :param knowledge: version and digest of the articles as they are now.
        :param started: when the message came, by ``time.perf_counter``.
        """
        deadline = asyncio.get_running_loop().call_later(
            policy.MODEL_DEADLINE_SECONDS, run.left.set
        )
        try:
            state = await self._graph(query, run)
        finally:
            deadline.cancel()
        seconds = time.perf_counter() - started
        metadata = metadata_of(state, seconds, self._model_name)
        made_with = self._provenance(state, metadata.model, knowledge)
        record = describe(state, made_with, seconds=seconds, left=run.left.is_set())
        return Thought(state, metadata, record)

    async def rehearse(self, ask: Ask, principal: Principal) -> QueryResult:
        """Answer a message the way every message is answered, and keep nothing of it.

        All that would be stored is stored, and taken back with its transaction: the database takes
        part, yet no customer, no agent, no webhook and no statistic ever hears of it.

        :raises: as ``accept``.
        """
        text, user_id = _checked(ask)
        kept = redact(text, SECRETS)

        def arrive(records: Records) -> tuple[Query, tuple[int, str]]:
            accepted = _accept(records, principal, user_id, kept, ask.conversation_id)
            return _to_think_of(records, accepted)

        query, knowledge = await self._taken_back(arrive)
        run = Run(_unheard, asyncio.Event())
        thought = await self.think(query, knowledge, run, started=time.perf_counter())

        def finish(records: Records) -> QueryResult:
            accepted = _accept(records, principal, user_id, kept, ask.conversation_id)
            reply, conversation = _finish(records, accepted, thought)
            return result_of(conversation, reply)

        return await self._taken_back(finish)

    async def _taken_back(self, work: Callable[[Records], T]) -> T:
        made: list[T] = []

        def working(records: Records) -> None:
            made.append(work(records))
            raise _TakenBack

        with suppress(_TakenBack):
            await self._database.write(working)
        return made[-1]

    async def drain(self) -> None:
        """Wait for the answers under way, before the process stops."""
        await asyncio.gather(*self._under_way, return_exceptions=True)


class _TakenBack(Exception):
    """Ends a transaction that was only tried."""


async def _unheard(event: str, data: dict[str, Any]) -> None:
    """The emit of an answer that nobody waits for."""


def _checked(ask: Ask) -> tuple[str, str]:
    """The visible text and the user's id.

    :raises InvalidInput: the message is empty or too long, or that is no id.
    """
    text = clean(ask.message)
    user_id = checked_user_id(ask.user_id)
    if not 1 <= len(text) <= policy.MESSAGE_MAX_CHARS:
        raise InvalidInput(f"A message has 1 to {policy.MESSAGE_MAX_CHARS} visible characters.")
    return text, user_id


def _accept(
    records: Records,
    principal: Principal,
    user_id: str,
    kept: Redacted,
    conversation_id: str | None,
) -> Accepted:
    user = records.users.ensure(user_id)
    if conversation_id is None:
        title = " ".join(kept.text.split())[:TITLE_CHARS]
        conversation = records.conversations.create(user.id, principal.owner, title)
    else:
        found = records.conversations.get(conversation_id, lock=True)
        if found is None or not principal.sees(found) or found.user_id != user.id:
            raise NotFound("There is no such conversation.")
        conversation = found
    details = {"removed": sorted(kept.counts)} if kept.counts else {}
    message = records.messages.add(
        conversation.id, "customer", kept.text, "received", details=details
    )
    query_events.created(records, conversation, message)
    return Accepted(conversation, message)


def _to_think_of(records: Records, accepted: Accepted) -> tuple[Query, tuple[int, str]]:
    """The message in its context, and version and digest of the articles, of one moment."""
    query = in_context(records, accepted.conversation, accepted.message)
    return query, records.knowledge.stand()


def _finish(records: Records, accepted: Accepted, thought: Thought) -> tuple[Message, Conversation]:
    """Everything an answer changes, in one transaction."""
    state, metadata = thought.state, thought.metadata
    answer, topic = state["answer"], state["topic"]
    conversation = records.conversations.get(accepted.conversation.id, lock=True)
    if conversation is None:
        raise NotFound("The conversation was deleted meanwhile.")
    if accepted.once is not None:
        # Another process may have taken the request over, having taken this one for dead.
        told = records.messages.reply(accepted.message.id)
        if told is not None:
            return told, conversation
    reply = records.messages.add(
        conversation.id,
        "assistant",
        answer.response,
        "sent",
        reply_to=accepted.message.id,
        category=state["category"],
        sentiment=state["sentiment"],
        priority=state["priority"],
        outcome=answer.outcome,
        mode=answer.mode,
        escalated=metadata.escalated,
        details={**asdict(metadata), "cut": answer.cut},
    )
    records.messages.set_state(accepted.message.id, "answered")
    changed = records.conversations.update(
        conversation.id,
        category=state["category"],
        priority=state["priority"],
        topic_article_id=topic.article_id,
        topic_question=topic.question,
        attempts=topic.attempts,
        status=_status(conversation, state),
        escalation_reason=metadata.escalation_reason or conversation.escalation_reason,
        case_reference=(
            state["query"].case_reference if metadata.escalated else conversation.case_reference
        ),
    )
    query_events.answered(records, reply, conversation, changed, metadata.escalation_reason)
    # Last, because on PostgreSQL every other answer waits for the chain until this one is stored.
    records.answers.append(reply, thought.record)
    return reply, changed


def _status(conversation: Conversation, state: QueryState) -> Any:
    """Escalated stays escalated until a person resolves it; a confirmation resolves, a new question
    reopens."""
    if state["answer"].outcome == "handoff" or conversation.status == "escalated":
        return "escalated"
    if state.get("intent") == "confirmation":
        return "resolved"
    # Thanks and goodbyes after a solution leave it solved.
    return conversation.status if state["answer"].outcome == "smalltalk" else "open"
