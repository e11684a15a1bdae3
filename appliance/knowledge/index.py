"""The vector index: FAISS over every article's question and answer, and the tokens that re-rank
what it finds, persisted beside their fingerprint.

The fingerprint joins what the vectors depend on: embedding model, articles, layout. An index whose
fingerprint differs from what is asked for is rebuilt, never searched: a wrong index answers wrongly
and looks well.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import faiss
import numpy as np
import numpy.typing as npt

from appliance.domain.passage import Article, Passage
from appliance.domain.policy import (
    CATEGORY_HINT,
    RERANKED,
    TERMS_WEIGHT,
    TOKENS_SHARE,
    VOTE_SHARPNESS,
    VOTERS,
)
from appliance.domain.text import sentences
from appliance.knowledge.embedding import Embedder, Vectors
from appliance.knowledge.late import Spans, TokenStore, gather, pack, record
from appliance.knowledge.terms import Terms
from appliance.knowledge.tokens import Tokens
from appliance.logs import get_logger

log = get_logger()

LAYOUT = "article+question+sentences+tokens/2"
"""One row an article (question and answer together), then for each article one row its question and
one each sentence of its answer; of the latter the tokens too. Change the number with the meaning.
On two desks' development queries the mean of the article's cosine and its nearest sentence's found
the right article among three for .89, question rows alone for .73: those are here to be found by,
not to be scored by."""
TOKENS_FILE = "tokens.bin"
BATCH = 512
"""Texts whose tokens are packed at a time: unpacked ones take more memory."""


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

    spans: Spans
    """Where each article's sentences begin and end among the rows."""
    terms: Terms
    """The words of each article, question and answer together."""
    tokens: TokenStore
    """The tokens of each article's question and sentences, each of them encoded alone. Of eight
    desks' queries .74 have their article first by these, .70 by the tokens of question and answer
    encoded as one text, .67 by those of the one best sentence."""

    def search(
        self,
        text: str,
        vector: npt.NDArray[np.float32],
        *,
        limit: int,
        category: str | None = None,
        tokens: Tokens | None = None,
    ) -> tuple[Passage, ...]:
        """The ``limit`` best articles, best first; as many as there are. Without the query's
        ``tokens`` the vectors alone decide."""
        found = self._candidates(text, vector, limit, category) if limit > 0 else []
        found.sort(key=lambda candidate: candidate[1].score, reverse=True)
        passages = [passage for _, passage in found]
        if tokens is not None:
            passages = self._rerank(found[: max(limit, RERANKED)], tokens, category)
        return tuple(passages[:limit])

    def categories(
        self, text: str, vector: npt.NDArray[np.float32], *, tokens: Tokens | None = None
    ) -> dict[str, float]:
        """How the articles near a query vote for its category: shares that add up to 1, or
        nothing."""
        found = self.search(text, vector, limit=VOTERS, tokens=tokens)
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

    def _rerank(
        self, found: Sequence[tuple[int, Passage]], tokens: Tokens, category: str | None
    ) -> list[Passage]:
        """Candidates by what their vectors and their tokens say together."""
        near = self.tokens.similarity(tokens, [owner for owner, _ in found])
        passages = []
        for (_, passage), similarity in zip(found, near, strict=True):
            hint = CATEGORY_HINT if passage.article.category == category else 0.0
            score = (1 - TOKENS_SHARE.value) * (passage.score - hint)
            score += TOKENS_SHARE.value * float(similarity) + hint
            passages.append(replace(passage, score=round(score, 4)))
        return sorted(passages, key=lambda passage: passage.score, reverse=True)

    def _candidates(
        self, text: str, vector: npt.NDArray[np.float32], limit: int, category: str | None
    ) -> list[tuple[int, Passage]]:
        """Articles whose text, or one of whose sentences, is among the nearest, or which have most
        of the query's words, by number, scored exactly."""
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
                (
                    owner,
                    Passage(
                        self.articles[owner],
                        round(score, 4),
                        self.texts[first + best],
                        tuple(round(float(cosine), 4) for cosine in cosines),
                    ),
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
    """Embed the articles. What ``known`` already holds of a text is taken over."""
    texts, owners, spans = _rows(articles)
    vectors: dict[str, npt.NDArray[np.float32]] = {}
    tokens: dict[str, npt.NDArray[np.void]] = {}
    if known is not None:
        vectors |= zip(known.texts, known.rows, strict=True)
        tokens |= zip(known.texts[len(known.articles) :], known.tokens.of_texts(), strict=True)
    wholes, parts = texts[: len(articles)], texts[len(articles) :]
    missing = sorted({text for text in wholes if text not in vectors})
    if missing:
        vectors |= zip(missing, embedder.encode(missing), strict=True)
    missing = sorted({text for text in parts if text not in tokens})
    for first in range(0, len(missing), BATCH):
        batch = missing[first : first + BATCH]
        rows, made = embedder.encode_tokens(batch)
        vectors |= zip(batch, rows, strict=True)
        tokens |= zip(batch, map(pack, made), strict=True)
    rows = np.zeros((len(texts), embedder.dimensions), dtype=np.float32)
    for at, text in enumerate(texts):
        rows[at] = vectors[text]
    index = faiss.IndexFlatIP(embedder.dimensions)
    index.add(rows)
    kept = [tokens[text] for text in parts]
    records = np.concatenate([np.zeros(0, dtype=record(embedder.dimensions)), *kept])
    return KnowledgeIndex(
        fingerprint(embedder, digest),
        tuple(articles),
        texts,
        owners,
        rows,
        index,
        spans,
        Terms(wholes),
        gather(records, [len(each) for each in kept], _parts(spans)),
    )


def _rows(
    articles: Sequence[Article],
) -> tuple[tuple[str, ...], npt.NDArray[np.int64], Spans]:
    """The text, the owner and each article's span of sentences, of all rows."""
    texts = [f"{article.question} {article.answer}" for article in articles]
    owners = list(range(len(articles)))
    spans = []
    for at, article in enumerate(articles):
        parts = [article.question, *sentences(article.answer)]
        spans.append((len(texts) + 1, len(texts) + len(parts)))
        texts += parts
        owners += [at] * len(parts)
    return tuple(texts), np.array(owners, dtype=np.int64), tuple(spans)


def _parts(spans: Spans) -> list[int]:
    """How many texts each article has by itself: its question and its sentences."""
    return [1 + last - first for first, last in spans]


def save(index: KnowledgeIndex, folder: Path) -> None:
    """Write index, tokens and fingerprint. A crash in between leaves files that do not match, which
    ``load`` refuses."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    content = faiss.serialize_index(index.faiss_index).data
    tokens = index.tokens.records.view(np.uint8).data
    meta = {
        "fingerprint": index.fingerprint,
        "sha256": hashlib.sha256(content).hexdigest(),
        "tokens_sha256": hashlib.sha256(tokens).hexdigest(),
        "tokens": index.tokens.lengths,
        "articles": len(index.articles),
    }
    files: dict[str, bytes | memoryview] = {
        "index.faiss": content,
        TOKENS_FILE: tokens,
        "index.json": json.dumps(meta).encode(),
    }
    for name, data in files.items():
        # The process id keeps two writers apart: a command and the server may both save.
        temporary = folder / f".{name}.{os.getpid()}"
        temporary.write_bytes(data)
        temporary.replace(folder / name)


def load(
    folder: Path, embedder: Embedder, digest: str, articles: Sequence[Article]
) -> KnowledgeIndex | None:
    """The saved index, or None where there is none that is whole and fits."""
    wanted = fingerprint(embedder, digest)
    texts, owners, spans = _rows(articles)
    try:
        meta = json.loads((folder / "index.json").read_bytes())
        if meta["fingerprint"] != wanted:
            return None
        content = (folder / "index.faiss").read_bytes()
        with (folder / TOKENS_FILE).open("rb") as file:
            tokens_sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            found = (hashlib.sha256(content).hexdigest(), tokens_sha256)
            if found != (meta["sha256"], meta["tokens_sha256"]):
                log.warning("index_damaged", folder=str(folder))
                return None
            records = _mapped(file, embedder.dimensions)
        tokens = gather(records, meta["tokens"], _parts(spans))
        index = faiss.deserialize_index(np.frombuffer(content, dtype=np.uint8))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        log.warning("index_unreadable", folder=str(folder), error=str(error))
        return None
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
        tokens,
    )


def _mapped(file: BinaryIO, dimensions: int) -> npt.NDArray[np.void]:
    """The tokens in a file, which another one may meanwhile take the place of.

    :raises ValueError: it holds no whole number of them.
    """
    kind = record(dimensions)
    # An empty file cannot be mapped.
    if not os.fstat(file.fileno()).st_size:
        return np.zeros(0, dtype=kind)
    return np.memmap(file, dtype=kind, mode="r")
