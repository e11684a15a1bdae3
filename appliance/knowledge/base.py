"""The knowledge base as the graph sees it: always the index of the articles as they are now."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from appliance.domain.passage import Article, Passage
from appliance.domain.ports import ArticleSource
from appliance.knowledge import index as indexes
from appliance.knowledge.embedding import EncodingBridge
from appliance.logs import get_logger
from appliance.turns import Turns

log = get_logger()


class KnowledgeBase:
    """Searches articles; keeps the ``Search`` protocol.

    Each search first asks the source for its digest, so that an import by another process is
    visible to the next query. Only one rebuild runs at a time, and queries wait for it: an answer
    from yesterday's articles would be wrong without looking wrong.
    """

    def __init__(self, source: ArticleSource, bridge: EncodingBridge, folder: Path) -> None:
        self._source = source
        self._bridge = bridge
        self._folder = folder
        self._current: indexes.KnowledgeIndex | None = None
        self._lock = asyncio.Lock()
        self._turns = Turns()

    @property
    def fingerprint(self) -> str | None:
        """What the index searched last is called; None before the first search."""
        return None if self._current is None else self._current.fingerprint

    async def refresh(self) -> indexes.KnowledgeIndex:
        """The index of the present articles, loaded or built where it has to be."""
        embedder = self._bridge.embedder
        wanted = indexes.fingerprint(embedder, await self._source.digest())
        current = self._current
        if current is not None and current.fingerprint == wanted:
            return current
        async with self._lock:
            digest, articles = await self._source.articles()
            wanted = indexes.fingerprint(embedder, digest)
            current = self._current
            if current is not None and current.fingerprint == wanted:
                return current
            fresh = await self._bridge.run(lambda: self._make(digest, articles, current))
            self._current = fresh
            return fresh

    async def search(
        self,
        text: str,
        vector: npt.NDArray[np.float32],
        *,
        limit: int,
        category: str | None = None,
    ) -> tuple[Passage, ...]:
        """See ``Search``. Finding among thousands of articles takes some 3 ms, re-ranking 2 to 4:
        no thread, but not all at once."""
        tokens = await self._bridge.tokens_of(text)
        index = await self.refresh()
        await self._turns.take()
        return index.search(text, vector, limit=limit, category=category, tokens=tokens)

    async def categories(self, text: str, vector: npt.NDArray[np.float32]) -> dict[str, float]:
        """See ``Search``."""
        tokens = await self._bridge.tokens_of(text)
        index = await self.refresh()
        await self._turns.take()
        return index.categories(text, vector, tokens=tokens)

    def _make(
        self,
        digest: str,
        articles: Sequence[Article],
        known: indexes.KnowledgeIndex | None,
    ) -> indexes.KnowledgeIndex:
        embedder = self._bridge.embedder
        saved = indexes.load(self._folder, embedder, digest, articles)
        if saved is not None:
            return saved
        built = indexes.build(embedder, digest, articles, known=known)
        log.info("index_built", articles=len(articles))
        try:
            indexes.save(built, self._folder)
        except OSError as error:
            # The disk may be full; the index in memory is as good until the next start.
            log.warning("index_not_saved", error=str(error))
            return built
        # As a start finds it: tokens in a file take no memory.
        return indexes.load(self._folder, embedder, digest, articles) or built
