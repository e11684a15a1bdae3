"""THE STORY: a customer's message comes in, an answer goes out, and both are remembered.

Three steps. ``accept`` stores the message before any thinking, so that nothing a customer wrote is
lost. The graph thinks. ``finish`` stores everything the answer changes in one transaction: the
reply, the message's state, the conversation's topic and status, the events, the answer's record. A
crash between the two leaves a message marked as received, which is shown as interrupted and can be
sent again: with its ``Idempotency-Key`` the same message goes on, without one a new one is stored.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import math
import random
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar
from weakref import WeakValueDictionary

import msgspec

from appliance.domain import policy
from appliance.domain.answer import Citation, Mode, Outcome, TokenUsage
from appliance.domain.once import Once
from appliance.domain.policy import Category, EscalationReason, Sentiment
from appliance.domain.ports import Emit
from appliance.domain.query import Query, Topic, Turn
from appliance.domain.record import Described, describe
from appliance.domain.redaction import SECRETS, Redacted, redact
from appliance.domain.state import QueryState, Run
from appliance.domain.text import clean
from appliance.errors import InvalidInput, NotFound, RateLimited, UnderWay
from appliance.graph.build import SupportGraph
from appliance.logs import bind_query, get_logger
from appliance.metrics import Metrics
from appliance.services.access import Principal, checked_user_id
from appliance.services.once import Idempotency
from appliance.services.provenance import Provenance
from appliance.storage.database import Database, Records
from appliance.storage.records import Conversation, Message, OnceRow

T = TypeVar("T")

log = get_logger()

TITLE_CHARS = 80
QUERY_LIMIT = 128
"""Queries under way where nobody says how many."""
LEASE = timedelta(seconds=policy.QUERY_DEADLINE_SECONDS)
PACE = 0.1
"""Weight of the latest answer in the mean time that an answer takes."""


@dataclass(frozen=True, slots=True)
class Ask:
    """A message as it arrives, checked by ``AnswerQuery``."""

    user_id: str
    message: str
    conversation_id: str | None = None


@dataclass(frozen=True, slots=True)
class Metadata:
    """How an answer came about. ``stages`` are seconds; ``failures`` names agents that fell back
    and errors that were worked around; ``remote`` says that words of it were written on another
    machine, by ``model``."""

    outcome: Outcome
    mode: Mode
    flags: tuple[str, ...]
    processing_time: float
    escalated: bool
    escalation_reason: EscalationReason | None
    kb_results: list[dict[str, Any]]
    citations: tuple[Citation, ...]
    model: str | None
    stages: dict[str, float]
    tokens: TokenUsage
    category_confidence: float = 0.0
    sentiment_confidence: float = 0.0
    failures: tuple[str, ...] = ()
    remote: bool = False


@dataclass(frozen=True, slots=True)
class QueryResult:
    """The answer to a query, as the API returns it."""

    conversation_id: str
    message_id: str
    response: str
    category: Category
    sentiment: Sentiment
    priority: int
    timestamp: datetime
    metadata: Metadata


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
        self._idempotency = idempotency or Idempotency(database, 24.0)
        self._metrics = metrics or Metrics()
        self._limit = limit
        self._arriving = 0
        self._seconds = 1.0
        self._under_way: set[asyncio.Task[QueryResult]] = set()
        self._waiting: Counter[str] = Counter()
        self._claims: dict[str, object] = {}
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
        self._refuse_when_full(ask.conversation_id)
        kept = redact(text, SECRETS)
        claim = object()

        def work(records: Records) -> Accepted:
            self._free(claim)  # of an attempt that the database rolled back
            if once is not None:
                row = self._idempotency.claim(records, once, LEASE)
                if row is not None and row.message_id is not None:
                    return self._again(records, once, row, claim)
            accepted = _accept(records, principal, user_id, kept, ask.conversation_id)
            if once is not None:
                accepted.once = once
                records.idempotency.about(once.id, message_id=accepted.message.id)
                self._claims[accepted.message.id] = claim
            return accepted

        self._arriving += 1
        try:
            return await self._database.write(work)
        except BaseException:
            self._free(claim)
            raise
        finally:
            self._arriving -= 1

    def _free(self, claim: object) -> None:
        """What was claimed for a transaction that came to nothing is free again. A copy is walked:
        other threads of the storage claim meanwhile."""
        for message_id in [key for key, owner in list(self._claims.items()) if owner is claim]:
            self._claims.pop(message_id, None)

    def _refuse_when_full(self, conversation_id: str | None) -> None:
        """Before anything is stored: what is refused here was never acknowledged. When to come
        back is spread: customers who were all told the same second would be refused together
        again."""
        spread = random.uniform(1, policy.RETRY_SPREAD)  # noqa: S311 - no secret
        retry_after = max(1, min(policy.RETRY_MAX_SECONDS, math.ceil(self._seconds * spread)))
        if len(self._under_way) + self._arriving >= self._limit:
            self._metrics.limited.labels("queries").inc()
            raise RateLimited(
                "As many questions as this desk answers at once are under way.",
                retry_after=retry_after,
            )
        if conversation_id and self._waiting[conversation_id] >= policy.CONVERSATION_QUEUE:
            self._metrics.limited.labels("conversation").inc()
            raise RateLimited(
                "Earlier messages of this conversation are still being answered.",
                retry_after=retry_after,
            )

    def _again(self, records: Records, once: Once, row: OnceRow, claim: object) -> Accepted:
        """The message that this very request brought before. Runs inside the transaction that holds
        the request's row, so that of two retries one goes on and one is told to wait."""
        message = records.messages.get(row.message_id or "")
        if message is None:
            raise NotFound("The conversation was deleted meanwhile.")
        conversation = records.conversations.get(message.conversation_id)
        assert conversation is not None
        reply = records.messages.reply(message.id)
        if reply is not None:
            return Accepted(conversation, message, reply, once)
        ours = row.holder == self._idempotency.holder
        if ours:
            busy = self._claims.get(message.id) not in (None, claim)
        else:
            # Another process, or one that is no more: a start marks what a crash left.
            busy = message.state == "received" and row.lease_expires_at > datetime.now(UTC)
        if busy:
            raise UnderWay(retry_after=max(1, math.ceil(self._seconds)))
        records.idempotency.hold(once.id, self._idempotency.holder, LEASE)
        records.messages.set_state(message.id, "received")
        self._claims[message.id] = claim
        return Accepted(conversation, message, once=once)

    def start(
        self, accepted: Accepted, emit: Emit, left: asyncio.Event
    ) -> asyncio.Task[QueryResult]:
        """Answer in a task of its own: a customer who leaves does not undo what was accepted.

        :param left: set it when nobody waits any more; the model stops, the articles finish the
            answer.
        """
        run = Run(emit, left)
        if accepted.reply is not None:
            return asyncio.create_task(_repeat(accepted.conversation, accepted.reply, run))
        task = asyncio.create_task(self._answer(accepted, run))
        self._under_way.add(task)
        self._waiting[accepted.conversation.id] += 1
        self._metrics.queries_under_way.inc()

        def ended(task: asyncio.Task[QueryResult]) -> None:
            self._under_way.discard(task)
            self._claims.pop(accepted.message.id, None)
            self._metrics.queries_under_way.dec()
            self._waiting[accepted.conversation.id] -= 1
            if not self._waiting[accepted.conversation.id]:
                del self._waiting[accepted.conversation.id]
            self._seconds += PACE * (time.perf_counter() - accepted.started - self._seconds)
            if not task.cancelled() and task.exception() is not None:
                self._metrics.queries_failed.inc()

        task.add_done_callback(ended)
        return task

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
            return _query(records, accepted), records.knowledge.stand()

        query, knowledge = await self._taken_back(arrive)
        run = Run(_unheard, asyncio.Event())
        thought = await self.think(query, knowledge, run, started=time.perf_counter())

        def finish(records: Records) -> QueryResult:
            accepted = _accept(records, principal, user_id, kept, ask.conversation_id)
            reply, conversation = _finish(records, accepted, thought)
            return _result(conversation, reply)

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

    async def _answer(self, accepted: Accepted, run: Run) -> QueryResult:
        bind_query(accepted.message.id)
        # One after the other within a conversation: each answer builds on the topic the one before
        # left.
        async with self._locks.setdefault(accepted.conversation.id, asyncio.Lock()):
            return await self._answer_next(accepted, run)

    async def _answer_next(self, accepted: Accepted, run: Run) -> QueryResult:
        query, knowledge = await self._database.read(
            lambda records: (_query(records, accepted), records.knowledge.stand())
        )
        thought = await self.think(query, knowledge, run, started=accepted.started)
        state, metadata = thought.state, thought.metadata
        reply, conversation = await self._database.write(
            lambda records: _finish(records, accepted, thought)
        )
        self._count(state, metadata)
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
        return _result(conversation, reply)

    def _count(self, state: QueryState, metadata: Metadata) -> None:
        told = self._metrics
        told.queries.labels(metadata.outcome, metadata.mode, state["category"]).inc()
        told.query_seconds.labels(metadata.mode).observe(metadata.processing_time)
        for stage, seconds in metadata.stages.items():
            told.stage_seconds.labels(stage).observe(seconds)
        for kind, tokens in asdict(metadata.tokens).items():
            told.tokens.labels(kind).inc(tokens)
        for failure in metadata.failures:
            told.agent_failures.labels(failure).inc()
        if metadata.escalation_reason is not None:
            told.escalations.labels(metadata.escalation_reason).inc()

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
        metadata = self._metadata(state, seconds)
        made_with = self._provenance(state, metadata.model, knowledge)
        record = describe(state, made_with, seconds=seconds, left=run.left.is_set())
        return Thought(state, metadata, record)

    def _metadata(self, state: QueryState, seconds: float) -> Metadata:
        answer = state["answer"]
        asked = answer.mode == "drafted" or answer.tokens.prompt > 0
        return Metadata(
            outcome=answer.outcome,
            mode=answer.mode,
            flags=(*answer.flags, "remote") if answer.remote else answer.flags,
            processing_time=round(seconds, 4),
            escalated=answer.outcome == "handoff",
            escalation_reason=state.get("escalation_reason"),
            kb_results=[passage.as_result() for passage in state.get("passages", ())],
            citations=answer.citations,
            model=answer.model or (self._model_name() if asked else None),
            stages=state["stages"],
            tokens=answer.tokens,
            category_confidence=state.get("category_confidence", 0.0),
            sentiment_confidence=state.get("sentiment_confidence", 0.0),
            failures=state["failures"] + answer.failures,
            remote=answer.remote,
        )


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


async def _repeat(conversation: Conversation, reply: Message, run: Run) -> QueryResult:
    """Tell an answer again, from what was stored of it."""
    result = _result(conversation, reply)
    told = {"category": result.category, "sentiment": result.sentiment, "priority": result.priority}
    await run.emit("analysis", told)
    await run.emit("passages", {"kb_results": result.metadata.kb_results})
    await run.emit("token", {"text": result.response})
    return result


def _result(conversation: Conversation, reply: Message) -> QueryResult:
    """An answer as it was stored: the first telling and every later one are made of the same."""
    assert reply.category is not None
    assert reply.sentiment is not None
    assert reply.priority is not None
    return QueryResult(
        conversation_id=conversation.id,
        message_id=reply.id,
        response=reply.content,
        category=reply.category,
        sentiment=reply.sentiment,
        priority=reply.priority,
        timestamp=reply.created_at,
        metadata=msgspec.convert(reply.details, Metadata),
    )


def case_reference(conversation_id: str) -> str:
    """What people call an escalated conversation; short enough to read out on the telephone."""
    digest = hashlib.sha256(conversation_id.encode()).digest()
    return f"CASE-{base64.b32encode(digest)[:10].decode()}"


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
    records.events.add(
        "query.created",
        conversation_id=conversation.id,
        user_id=user.id,
        data={"message_id": message.id},
    )
    return Accepted(conversation, message)


def _query(records: Records, accepted: Accepted) -> Query:
    """The message with its context as it is now that its turn has come."""
    conversation = records.conversations.get(accepted.conversation.id)
    user = records.users.get(accepted.conversation.user_id)
    if conversation is None or user is None:
        raise NotFound("The conversation was deleted meanwhile.")
    turns = [
        turn
        for turn in records.messages.list(conversation.id)
        if turn.seq < accepted.message.seq or turn.role != "customer"
    ]
    since = datetime.now(UTC) - timedelta(days=policy.REPEAT_WINDOW_DAYS)
    topic = None
    if conversation.topic_question is not None:
        topic = Topic(
            conversation.topic_article_id, conversation.topic_question, conversation.attempts
        )
    return Query(
        text=accepted.message.content,
        user_id=user.id,
        case_reference=case_reference(conversation.id),
        history=tuple(Turn(turn.role, turn.content) for turn in turns[-policy.HISTORY_TURNS :]),
        topic=topic,
        vip=user.vip,
        recent_articles=records.conversations.unresolved_articles(user.id, since, conversation.id),
        removed=tuple(accepted.message.details.get("removed", ())),
    )


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
    records.events.add(
        "response.generated",
        conversation_id=conversation.id,
        user_id=conversation.user_id,
        data={
            "message_id": reply.id,
            "reply_to": accepted.message.id,
            "category": state["category"],
            "sentiment": state["sentiment"],
            "priority": state["priority"],
            "outcome": answer.outcome,
            "mode": answer.mode,
            "escalated": metadata.escalated,
        },
    )
    if metadata.escalated and conversation.status != "escalated":
        records.events.add(
            "conversation.escalated",
            conversation_id=conversation.id,
            user_id=conversation.user_id,
            data={
                "reason": metadata.escalation_reason,
                "case_reference": changed.case_reference,
                "category": state["category"],
                "sentiment": state["sentiment"],
                "priority": state["priority"],
            },
        )
    if changed.status == "resolved" and conversation.status != "resolved":
        records.events.add(
            "conversation.resolved",
            conversation_id=conversation.id,
            user_id=conversation.user_id,
            data={
                "by": "customer",
                "category": changed.category,
                "case_reference": changed.case_reference,
            },
        )
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
