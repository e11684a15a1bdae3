"""The vector index: FAISS over every article's question and answer, persisted beside its
fingerprint.

The fingerprint joins what the vectors depend on: embedding model, articles, layout. An index whose
fingerprint differs from what is asked for is rebuilt, never searched: a wrong index answers wrongly
and looks well.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from appliance.domain.passage import Article, Passage
from appliance.domain.policy import CATEGORY_HINT, TERMS_WEIGHT, VOTE_SHARPNESS, VOTERS
from appliance.domain.text import sentences
from appliance.knowledge.embedding import Embedder, Vectors
from appliance.knowledge.terms import Terms
from appliance.logs import get_logger

log = get_logger()

LAYOUT = "article+sentences/1"
"""One row an article (question and answer together), then one row a sentence of each answer. Change
the number with the meaning. On two desks' development queries the mean of the article's cosine and
its nearest sentence's found the right article among three for .89, question rows alone for .73."""


@dataclass(frozen=True, slots=True)
class KnowledgeIndex:
    """An immutable snapshot: searching one while the next is built is safe."""

    fingerprint: str
    articles: tuple[Article, ...]
    texts: tuple[str, ...]
    """The text of each row, articles first."""
    owners: npt.NDArray[np.int64]
    """The article each row belongs to, shape (rows,)."""
    rows: Vectors
    """Shape (rows, dimensions)."""
    faiss_index: Any

    spans: tuple[tuple[int, int], ...]
    """Where each article's sentences begin and end among the rows."""
    terms: Terms
    """The words of each article, question and answer together."""

    def search(
        self,
        text: str,
        vector: npt.NDArray[np.float32],
        *,
        limit: int,
        category: str | None = None,
    ) -> tuple[Passage, ...]:
        """The ``limit`` best articles, best first; as many as there are."""
        found = self._candidates(text, vector, limit, category) if limit > 0 else []
        return tuple(sorted(found, key=lambda passage: passage.score, reverse=True)[:limit])

    def categories(self, text: str, vector: npt.NDArray[np.float32]) -> dict[str, float]:
        """How the articles near a query vote for its category: shares that add up to 1, or
        nothing."""
        found = self.search(text, vector, limit=VOTERS)
        if not found:
            return {}
        scores = np.array([passage.score for passage in found])
        votes = np.exp((scores - scores.max()) / VOTE_SHARPNESS)
        shares: dict[str, float] = {}
        for passage, vote in zip(found, votes / votes.sum(), strict=True):
            shares[passage.article.category] = shares.get(passage.article.category, 0.0) + float(
                vote
            )
        return shares

    def _candidates(
        self, text: str, vector: npt.NDArray[np.float32], limit: int, category: str | None
    ) -> list[Passage]:
        """Articles whose text, or one of whose sentences, is among the nearest, or which have most
        of the query's words, scored exactly."""
        if not self.articles:
            return []
        query = vector.reshape(1, -1)
        # Articles are searched by themselves too: one with a hundred sentences must not crowd the
        # others out.
        whole: Any = faiss.SearchParameters()
        whole.sel = faiss.IDSelectorRange(0, len(self.articles))
        _, articles = self.faiss_index.search(
            query, min(len(self.articles), 2 * limit), params=whole
        )
        _, rows = self.faiss_index.search(query, min(len(self.rows), 4 * limit))
        coverage = self.terms.coverage(text)
        worded = np.argsort(-coverage, kind="stable")[:limit]
        owners = dict.fromkeys(
            [*articles[0].tolist(), *self.owners[rows[0]].tolist(), *worded.tolist()]
        )
        found = []
        for owner in owners:
            first, last = self.spans[owner]
            cosines = self.rows[first:last] @ vector
            best = int(cosines.argmax())
            score = (float(self.rows[owner] @ vector) + float(cosines[best])) / 2
            score += TERMS_WEIGHT.value * float(coverage[owner])
            score += CATEGORY_HINT if self.articles[owner].category == category else 0.0
            found.append(
                Passage(
                    self.articles[owner],
                    round(score, 4),
                    self.texts[first + best],
                    tuple(round(float(cosine), 4) for cosine in cosines),
                )
            )
        return found


def fingerprint(embedder: Embedder, digest: str) -> str:
    """What an index over the articles of ``digest`` made by ``embedder`` is called."""
    return hashlib.sha256(f"{LAYOUT}\n{embedder.fingerprint}\n{digest}".encode()).hexdigest()


def build(
    embedder: Embedder,
    digest: str,
    articles: Sequence[Article],
    *,
    known: KnowledgeIndex | None = None,
) -> KnowledgeIndex:
    """Embed the articles. Vectors of texts that ``known`` already holds are taken over."""
    texts, owners, spans = _rows(articles)
    reusable = dict(zip(known.texts, known.rows, strict=True)) if known is not None else {}
    missing = sorted({text for text in texts if text not in reusable})
    if missing:
        reusable |= dict(zip(missing, embedder.encode(missing), strict=True))
    rows = np.zeros((len(texts), embedder.dimensions), dtype=np.float32)
    for at, text in enumerate(texts):
        rows[at] = reusable[text]
    index = faiss.IndexFlatIP(embedder.dimensions)
    index.add(rows)
    return KnowledgeIndex(
        fingerprint(embedder, digest),
        tuple(articles),
        texts,
        owners,
        rows,
        index,
        spans,
        Terms(texts[: len(articles)]),
    )


def _rows(
    articles: Sequence[Article],
) -> tuple[tuple[str, ...], npt.NDArray[np.int64], tuple[tuple[int, int], ...]]:
    """The text, the owner and each article's span of sentences, of all rows."""
    texts = [f"{article.question} {article.answer}" for article in articles]
    owners = list(range(len(articles)))
    spans = []
    for at, article in enumerate(articles):
        parts = sentences(article.answer)
        spans.append((len(texts), len(texts) + len(parts)))
        texts += parts
        owners += [at] * len(parts)
    return tuple(texts), np.array(owners, dtype=np.int64), tuple(spans)


def save(index: KnowledgeIndex, folder: Path) -> None:
    """Write index and fingerprint. A crash in between leaves a pair that does not match, which
    ``load`` refuses."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    content = faiss.serialize_index(index.faiss_index).tobytes()
    meta = {
        "fingerprint": index.fingerprint,
        "sha256": hashlib.sha256(content).hexdigest(),
        "articles": len(index.articles),
    }
    for name, data in (("index.faiss", content), ("index.json", json.dumps(meta).encode())):
        # The process id keeps two writers apart: a command and the server may both save.
        temporary = folder / f".{name}.{os.getpid()}"
        temporary.write_bytes(data)
        temporary.replace(folder / name)


def load(
    folder: Path, embedder: Embedder, digest: str, articles: Sequence[Article]
) -> KnowledgeIndex | None:
    """The saved index, or None where there is none that is whole and fits."""
    wanted = fingerprint(embedder, digest)
    try:
        meta = json.loads((folder / "index.json").read_bytes())
        if meta["fingerprint"] != wanted:
            return None
        content = (folder / "index.faiss").read_bytes()
        if hashlib.sha256(content).hexdigest() != meta["sha256"]:
            log.warning("index_damaged", folder=str(folder))
            return None
        index = faiss.deserialize_index(np.frombuffer(content, dtype=np.uint8))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        log.warning("index_unreadable", folder=str(folder), error=str(error))
        return None
    texts, owners, spans = _rows(articles)
    if index.ntotal != len(texts) or index.d != embedder.dimensions:
        return None
    rows = np.zeros((0, index.d), dtype=np.float32)
    if index.ntotal:
        rows = np.asarray(index.reconstruct_n(0, index.ntotal), dtype=np.float32)
    return KnowledgeIndex(
        wanted,
        tuple(articles),
        texts,
        owners,
        rows,
        index,
        spans,
        Terms(texts[: len(articles)]),
    )
