"""The composition root: settings in, a whole appliance out. The only file that chooses concrete
backends."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from structlog.contextvars import get_contextvars

from appliance import __version__
from appliance.agents.billing import BillingAgent
from appliance.agents.categorizer import Categorizer
from appliance.agents.escalation import EscalationAgent
from appliance.agents.general import GeneralAgent
from appliance.agents.retriever import KnowledgeRetriever
from appliance.agents.sentiment import SentimentAnalyst
from appliance.agents.technical import TechnicalAgent
from appliance.errors import ApplianceError, NotReady, StorageUnavailable
from appliance.graph.build import Agents, SupportGraph
from appliance.jobs.sending import receiver_guard, webhook_secrets
from appliance.jobs.waking import waker
from appliance.knowledge.base import KnowledgeBase
from appliance.knowledge.embedding import Embedder, EncodingBridge, packaged_model
from appliance.knowledge.onnx_graph import load_embedder
from appliance.llm import remote, weights
from appliance.llm.capabilities import VLLM
from appliance.llm.catalog import Catalog
from appliance.llm.interface import ChatModel
from appliance.llm.openai_client import OpenAIChatModel
from appliance.llm.patient import PatientModel
from appliance.llm.templates import template
from appliance.logs import get_logger, request_headers
from appliance.metrics import Metrics
from appliance.operations.backup import exchange
from appliance.operations.locks import hold_lock
from appliance.operations.monitor import Monitor
from appliance.operations.secrets import load_secret, told
from appliance.services.access import Access
from appliance.services.accounts import Accounts
from appliance.services.answer_query import AnswerQuery
from appliance.services.answer_records import AnswerRecords
from appliance.services.audit import AuditLog
from appliance.services.conversations import Conversations
from appliance.services.corrections import Corrections
from appliance.services.deliveries import Deliveries
from appliance.services.golden import GoldenSet
from appliance.services.interruptions import Interruptions
from appliance.services.knowledge import Knowledge, StoredArticles
from appliance.services.learning import Learning, Retraining
from appliance.services.limits import Limit, VisitorLimit
from appliance.services.once import Idempotency
from appliance.services.passwords import Passwords
from appliance.services.provenance import Provenance
from appliance.services.quarantine import Quarantine
from appliance.services.served_models import ServedModels
from appliance.services.sessions import Sessions
from appliance.services.users import Users
from appliance.services.visitors import Visitors
from appliance.services.webhooks import Webhooks
from appliance.settings import HOME, Settings, ensure_folders
from appliance.storage.database import Database
from appliance.understanding.current import CurrentReader
from appliance.understanding.language import identifier
from appliance.understanding.learnt import as_shipped
from appliance.understanding.opinion import ModelOpinion
from appliance.understanding.reader import FEATURES_VERSION, load_or_train
from appliance.understanding.vectors import VectorFile
from appliance.understanding.versions import HeadVersions

log = get_logger()

EXAMPLES = HOME / "kb" / "examples.jsonl"


@dataclass(frozen=True, slots=True)
class Prepared:
    """What is there once the embedding model is loaded."""

    encoder: EncodingBridge
    knowledge_base: KnowledgeBase
    knowledge: Knowledge
    graph: SupportGraph
    answer_query: AnswerQuery
    retraining: Retraining


def _local_model(settings: Settings) -> ChatModel:
    """The client of the model on this machine: our own engine, or vLLM."""
    if settings.backend == "vllm":
        entry = weights.active(settings)
        return OpenAIChatModel(
            settings.vllm_url,
            model=entry.name,
            timeout=settings.engine_timeout,
            capabilities=VLLM,
            headers=request_headers,
            breaks=template(entry.template),
        )
    return OpenAIChatModel(
        socket=settings.engine_socket, timeout=settings.engine_timeout, headers=request_headers
    )


class Appliance:
    """Every service of one appliance.

    What needs no weights is there at once; ``start`` prepares the rest in the background, and until
    then ``ready`` refuses.

    :param model: stands in for the engine's client, in tests and evaluations; a remote backend that
        is enabled stands in front of either.
    :param embedder: stands in for the packaged sentence-transformers model, in tests.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        model: ChatModel | None = None,
        embedder: Embedder | None = None,
    ) -> None:
        ensure_folders(settings)
        exchange.require_settled(settings)
        self.settings = settings
        self.metrics = Metrics()
        self._waker = waker(settings)
        self.database = Database(settings.resolved_database_url, self.metrics, wake=self._waker)
        self.model: ChatModel = PatientModel(
            model or _local_model(settings),
            places=settings.engine_streams + settings.engine_queue,
            patience=settings.engine_patience,
            waited=self._waited,
        )
        if settings.remote_enabled:
            self.model = remote.connect(settings, self.model, self._note)
        self.access = Access(self.database)
        self.visitors = Visitors(load_secret(settings.data_dir, "visitors"))
        self.visitor_limit = VisitorLimit(settings.visitor_queries_per_minute)
        self.key_limit = Limit("key", settings.key_requests_per_minute)
        passwords = Passwords()
        self.accounts = Accounts(self.database, passwords)
        self.sessions = Sessions(
            self.database,
            self.access,
            passwords,
            idle=timedelta(minutes=settings.session_idle_minutes),
            longest=timedelta(hours=settings.session_hours),
        )
        self.audit = AuditLog(self.database)
        self.conversations = Conversations(self.database)
        self.users = Users(self.database)
        self.quarantine = Quarantine(self.database)
        self.corrections = Corrections(self.database)
        self.golden = GoldenSet(self.database, EXAMPLES)
        self.versions = HeadVersions(settings.data_dir / "heads")
        self.learning = Learning(self.database, self.versions, EXAMPLES, hold_lock)
        self.answer_records = AnswerRecords(self.database)
        self.idempotency = Idempotency(self.database, settings.idempotency_hours)
        alone = settings.resolved_database_url.startswith("sqlite")
        self.interruptions = Interruptions(self.database, alone=alone)
        guard = receiver_guard(settings)
        self.webhooks = Webhooks(self.database, guard, webhook_secrets(settings))
        self.deliveries = Deliveries(self.database, guard)
        self.served_model = ServedModels(self.database)
        self.monitor = Monitor(
            self.model,
            self.database,
            lambda: self.is_ready,
            folder=settings.data_dir,
            reserve=settings.disk_reserve_mib * 2**20,
            metrics=self.metrics,
            serves=self.served_model.seen,
        )
        self._embedder = embedder
        self._preparing: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._prepared: Prepared | None = None
        self.failure: Exception | None = None
        """Why preparing failed, for whoever serves this appliance."""

    async def start(self) -> None:
        """Check the database, then load the embedding model and the index in the background.

        :raises StorageUnavailable: the database is missing, not migrated, or newer than this code.
        """
        await self.database.check()
        await self._note_start()
        self.monitor.start()
        self._preparing = asyncio.create_task(self._prepare_or_stop())

    async def prepare(self) -> None:
        """Load what takes seconds: embedding model, heads, index."""
        loop = asyncio.get_running_loop()
        embedder = self._embedder
        if embedder is None:
            embedder = await loop.run_in_executor(None, self._load_embedder)
        if self.settings.languages:
            # Not at the first message that looks foreign: loading it would hold up everybody's.
            await loop.run_in_executor(None, identifier)
        bridge = EncodingBridge(embedder)
        vectors = VectorFile(self.settings.data_dir / "heads" / "vectors.npz", embedder.fingerprint)
        reader = await bridge.run(lambda: self._load_reader(embedder, vectors))
        base = KnowledgeBase(
            StoredArticles(self.database), bridge, self.settings.data_dir / "index"
        )
        await base.refresh()
        mode = self.settings.answer_mode
        advice = ModelOpinion(self.model, self.opinions_file, self._weights_in_charge)
        graph = SupportGraph(
            Agents(
                categorizer=Categorizer(
                    bridge, base, reader, frozenset(self.settings.languages), advice=advice
                ),
                sentiment=SentimentAnalyst(bridge, reader, advice=advice),
                retriever=KnowledgeRetriever(bridge, base),
                technical=TechnicalAgent(self.model, mode),
                billing=BillingAgent(self.model, mode),
                account=GeneralAgent(self.model, "account", mode),
                general=GeneralAgent(self.model, "general", mode),
                escalation=EscalationAgent(bridge),
            )
        )
        self._prepared = Prepared(
            encoder=bridge,
            knowledge_base=base,
            knowledge=Knowledge(self.database, bridge, base),
            graph=graph,
            answer_query=AnswerQuery(
                self.database,
                graph,
                lambda: self.monitor.seen.model.model,
                Provenance(
                    weights=self._weights_of,
                    heads=lambda: reader.fingerprint + advice.mark(),
                    index=lambda: base.fingerprint,
                    encoder=embedder.fingerprint,
                    settings={"answer_mode": mode, "languages": self.settings.languages},
                ),
                idempotency=self.idempotency,
                metrics=self.metrics,
                limit=self.settings.query_limit,
            ),
            retraining=Retraining(
                self.database,
                self.versions,
                EXAMPLES,
                hold_lock,
                encoder=bridge,
                current=reader,
                vectors=vectors,
            ),
        )

    @property
    def is_ready(self) -> bool:
        """Whether queries can be answered."""
        return self._prepared is not None

    @property
    def ready(self) -> Prepared:
        """What needs the embedding model.

        :raises NotReady: it is still loading.
        """
        if self._prepared is None:
            raise NotReady("The appliance is still starting.")
        return self._prepared

    async def aclose(self) -> None:
        """Finish the answers under way, then release everything."""
        if self._prepared is not None:
            await self._prepared.answer_query.drain()
        for task in (self._preparing, self._watching):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        await self.monitor.stop()
        await self.model.aclose()
        if self._prepared is not None:
            await asyncio.to_thread(self._prepared.retraining.close)
            self._prepared.encoder.close()
        await self.database.aclose()
        await asyncio.to_thread(self._waker.close)

    def _waited(self, got: bool, seconds: float) -> None:
        self.metrics.model_waits.labels("placed" if got else "refused").inc()
        self.metrics.model_wait_seconds.observe(seconds)

    async def _note(self, action: str, target: str, details: Mapping[str, Any]) -> None:
        """Write down what the appliance did by itself, and for which query."""
        query = get_contextvars().get("query")
        await self.database.write(
            lambda records: records.audit.add(
                "appliance", action, target, {**details, "query": query}
            )
        )

    async def _note_start(self) -> None:
        """Write down what is in force from now on."""
        try:
            await self.audit.note("appliance", "appliance.start", __version__, told(self.settings))
        except StorageUnavailable as error:
            # A full disk must not keep the articles from being read.
            log.warning("start_not_noted", detail=error.detail)

    async def _prepare_or_stop(self) -> None:
        try:
            await self.interruptions.close_left_behind()
            await self.prepare()
            self._watching = asyncio.create_task(self._watch())
            log.info("ready")
        except Exception as error:
            self.failure = error
            # Half an appliance would answer 503 for ever; a stopped one is restarted and its log is
            # read.
            hint = error.hint if isinstance(error, ApplianceError) else ""
            log.error("start_failed", error=str(error), hint=hint, exc_info=True)
            os.kill(os.getpid(), signal.SIGTERM)

    async def _watch(self) -> None:
        await asyncio.gather(self.ready.retraining.watch(), self.interruptions.watch())

    @property
    def opinions_file(self) -> Path:
        """How much each model's word counts in categories and moods."""
        return self.settings.data_dir / "heads" / "opinions.json"

    def _weights_in_charge(self) -> str | None:
        seen = self.monitor.seen.model
        return seen.sha256 or seen.model

    def _weights_of(self, model: str) -> str | None:
        """The SHA-256 of the model's weights: as the engine tells it, else as it was written down
        when they came."""
        seen = self.monitor.seen.model
        if seen.model == model and seen.sha256 is not None:
            return seen.sha256
        with suppress(ApplianceError):
            return weights.locate(self.settings, Catalog.load().entry(model))[1]
        return None

    def _load_embedder(self) -> Embedder:
        folder = self.settings.embeddings_dir or packaged_model()
        return load_embedder(folder, self.settings.data_dir / "embeddings")

    def _load_reader(self, embedder: Embedder, vectors: VectorFile) -> CurrentReader:
        shipped = load_or_train(
            EXAMPLES,
            self.settings.data_dir / "heads" / "shipped.npz",
            vectors.keeping(embedder.encode),
            embedder.fingerprint,
        )
        return CurrentReader(
            as_shipped(shipped.trained),
            self.versions,
            f"{FEATURES_VERSION}:{embedder.fingerprint}",
        )
