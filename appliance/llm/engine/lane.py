"""Several answers written side by side in one context: who is where, and what is computed next.

The first sequences belong to streams that write, the next ones to streams that still read their
prompt. A batch is computed at once only where its sequences are consecutive, so whoever ends or
begins to write is replaced or moved: that copies a few hundred cells.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Final

import numpy as np

from appliance.errors import ModelError
from appliance.llm.engine.constraints import Choices, Logits
from appliance.llm.engine.llamacpp import Context
from appliance.llm.engine.prefixes import PrefixStore, as_tokens, shared_prefix
from appliance.llm.engine.speed import Speed
from appliance.llm.engine.stream import Stream
from appliance.llm.engine.work import CancelFlag, Ended, Failed, Finished
from appliance.logs import get_logger

log = get_logger()

PREFILL_BATCH: Final = 256
"""Prompt tokens evaluated at once: enough for full speed, few enough to look up in between."""
PREFILL_BESIDE: Final = 128
"""The same while somebody is writing, who waits meanwhile."""
SHORTEST_SHARED: Final = 8
"""Tokens in common for which copying a cache is worth it."""
PATIENCE: Final = 64
"""Prompt tokens by which a waiting prompt counts as shorter for each chunk it waited."""
DRAFT_STREAMS: Final = 2
"""Most writing streams beside which drafts are tried: a full batch has no cheap rows left."""

_NEVER = CancelFlag()


class Lane:
    """Streams of one context. Belongs to the engine's thread.

    :param drafts: whether streams may look drafts up in their prompts.
    """

    def __init__(
        self, context: Context, size: int, store: PrefixStore, speed: Speed, *, drafts: bool
    ) -> None:
        self._context = context
        self._size = size
        self._store = store
        self._speed = speed
        self._drafts = drafts
        self._streams: list[Stream] = []
        self._writing = 0

    @property
    def length(self) -> int:
        """Most tokens of prompt and answer together."""
        return self._context.length

    @property
    def free(self) -> int:
        """How many more streams there is room for."""
        return self._size - len(self._streams)

    @property
    def streams(self) -> tuple[Stream, ...]:
        """Those under way."""
        return tuple(self._streams)

    @property
    def drafts(self) -> bool:
        """Whether streams that begin now may look drafts up."""
        return self._drafts

    def begin(self, stream: Stream) -> None:
        """Take a stream in; its prompt waits for its turn."""
        assert self.free > 0
        self._streams.append(stream)

    def step(self, now: float) -> list[Ended]:
        """Advance: a token for everybody who writes, a chunk for one who reads."""
        ended = self._give_up(now)
        if len(self._streams) > self._writing:
            ended += self._read(self._next_reader())
        if self._writing:
            ended += self._write()
        return ended

    def clear(self) -> list[Stream]:
        """Drop every stream, whatever state the cache is in; returns them."""
        dropped = self._streams
        self._streams, self._writing = [], 0
        for sequence in range(self._size):
            self._context.forget(sequence=sequence)
        for stream in dropped:
            stream.close()
        return dropped

    def close(self) -> None:
        """Give the memory back."""
        self.clear()
        self._context.close()

    # --- who leaves -------------------------------------------------------------------------------

    def _give_up(self, now: float) -> list[Ended]:
        ended = []
        for stream in self.streams:
            if stream.job.flag.is_set():
                ended.append(self._release(stream, None))
            elif now > stream.work.deadline:
                ended.append(self._release(stream, _TOO_SLOW))
        return ended

    def _release(self, stream: Stream, event: Finished | Failed | None) -> Ended:
        """Free a stream's place; keep what it evaluated, if it came to a good end."""
        at = self._streams.index(stream)
        if isinstance(event, Finished):
            self._keep(stream, at)
        self._context.forget(sequence=at)
        stream.tokens = []
        stream.close()
        if at < self._writing:
            self._writing -= 1
            self._fill(at, self._writing)
            at = self._writing
        self._fill(at, len(self._streams) - 1)
        self._streams.pop()
        return Ended(stream.job, event)

    def _fill(self, hole: int, source: int) -> None:
        """Let the stream at ``source`` move into an empty place."""
        if hole == source:
            return
        moved = self._streams[source]
        if moved.tokens:
            self._context.restore(hole, self._context.save(source))
            self._context.forget(sequence=source)
        self._streams[hole] = moved

    def _keep(self, stream: Stream, at: int) -> None:
        tokens = as_tokens(stream.tokens)
        if len(tokens) < SHORTEST_SHARED or self._store.covers(tokens):
            return
        if self._context.saved_size(at) <= self._store.limit:
            self._store.put(tokens, self._context.save(at))

    # --- reading prompts --------------------------------------------------------------------------

    def _next_reader(self) -> Stream:
        """Who has least to read is read first, and the longer one waits, the less it counts."""
        readers = self._streams[self._writing :]
        chosen = min(readers, key=lambda stream: stream.unread - PATIENCE * stream.waited)
        for stream in readers:
            stream.waited += 1
        chosen.waited = 0
        return chosen

    def _read(self, stream: Stream) -> list[Ended]:
        """Evaluate the next chunk of a prompt, and begin to write after the last one."""
        at = self._streams.index(stream)
        if not stream.begun:
            stream.begun = True
            self._reuse(stream, at)
        start = len(stream.tokens)
        size = min(PREFILL_BESIDE if self._writing else PREFILL_BATCH, stream.unread)
        if stream.unread - size == 1:
            size -= 1  # rather two in the last batch than one, which gives other bits
        chunk = stream.prompt[start : start + size]
        self._context.watch(stream.job.flag)
        started = time.perf_counter()
        try:
            if not self._context.decode(chunk, start, sequence=at):
                return [self._release(stream, None)]
            self._speed.read(size, time.perf_counter() - started)
            stream.tokens += chunk.tolist()
            if stream.unread:
                return []
            if isinstance(stream.work.constraint, Choices):
                return [self._release(stream, self._choose(stream, at))]
            stream.take([self._sample(stream, self._context.logits(), -1)])
        except ModelError as error:
            return [self._failed(stream, error)]
        if stream.reason is not None:
            return [self._release(stream, stream.finish())]
        self._begin_to_write(stream, at)
        return []

    def _reuse(self, stream: Stream, at: int) -> None:
        """Copy the cache of the longest beginning that was evaluated before.

        At least two tokens are left to evaluate: one for the scores of the next token, and a
        second because a batch of one takes another path through the kernels and gives other bits.
        """
        shared, kept = self._store.best(stream.prompt)
        source = None
        for number, other in enumerate(self._streams):
            common = shared_prefix(as_tokens(other.tokens), stream.prompt)
            if common > shared:
                shared, source = common, number
        shared = min(shared, len(stream.prompt) - 2)
        if shared < SHORTEST_SHARED:
            return
        if source is not None:
            cache, tokens = self._context.save(source), self._streams[source].tokens
        else:
            assert kept is not None
            cache, tokens = kept.cache, kept.tokens.tolist()
        if len(tokens) > self.length:
            return  # of a longer lane
        try:
            self._context.restore(at, cache)
        except ModelError as error:
            log.warning("cache not reused", why=error.detail)
            return
        self._context.forget(shared, sequence=at)
        stream.tokens = list(tokens[:shared])
        stream.cached = shared

    def _choose(self, stream: Stream, at: int) -> Finished:
        end = len(stream.prompt)

        def logits_after(tokens: tuple[int, ...]) -> Logits:
            if tokens:
                self._context.watch(_NEVER)
                self._context.decode(tokens, end, sequence=at)
                self._context.forget(end, sequence=at)
            return self._context.logits()

        return stream.choose(logits_after)

    def _begin_to_write(self, stream: Stream, at: int) -> None:
        """Move a stream to the end of those that write."""
        place = self._writing
        self._writing += 1
        self._keep(stream, at)
        if at == place:
            return
        other = self._streams[place]
        theirs = self._context.save(place) if other.tokens else None
        self._context.restore(place, self._context.save(at))
        self._context.forget(sequence=at)
        if theirs is not None:
            self._context.restore(at, theirs)
        self._streams[place], self._streams[at] = stream, other

    # --- writing answers --------------------------------------------------------------------------

    def _write(self) -> list[Ended]:
        """A token, or a draft's worth of them, for everybody who writes."""
        writing = list(enumerate(self._streams[: self._writing]))
        drafts = self._look_up(writing) if len(writing) <= DRAFT_STREAMS else {}
        together = [(at, stream) for at, stream in writing if at not in drafts]
        before = sum(stream.generated for _, stream in writing)
        failed: dict[Stream, ModelError] = {}
        started = time.perf_counter()
        self._context.watch(_NEVER)
        try:
            if together:
                failed |= self._advance(together)
        except ModelError as error:
            failed |= {stream: error for _, stream in together}
        for at, draft in drafts.items():
            try:
                self._advance_by(self._streams[at], at, draft)
            except ModelError as error:
                failed[self._streams[at]] = error
        count = sum(stream.generated for _, stream in writing) - before
        self._speed.wrote(count, time.perf_counter() - started)
        ended = [self._failed(stream, error) for stream, error in failed.items()]
        return ended + [
            self._release(stream, stream.finish())
            for _, stream in writing
            if stream.reason is not None and stream not in failed
        ]

    def _look_up(self, writing: Iterable[tuple[int, Stream]]) -> dict[int, list[int]]:
        """Drafts, by place, of the streams that have one."""
        drafts = {}
        for at, stream in writing:
            if stream.lookup is not None and (draft := stream.lookup.draft(stream.left - 1)):
                drafts[at] = draft
        return drafts

    def _advance(self, together: list[tuple[int, Stream]]) -> dict[Stream, ModelError]:
        """One token each; returns the streams whose constraint could not be followed."""
        self._context.decode_each(
            [stream.due for _, stream in together],
            [len(stream.tokens) for _, stream in together],
            [at for at, _ in together],
        )
        table = self._context.table(len(together))
        best = table.argmax(axis=1).tolist()
        failed = {}
        for row, (_, stream) in enumerate(together):
            stream.tokens.append(stream.due)
            try:
                if stream.sampler is None and stream.matcher is None:
                    stream.take([best[row]])
                else:
                    stream.take([self._sample(stream, table[row], row)])
            except ModelError as error:
                failed[stream] = error
        return failed

    def _advance_by(self, stream: Stream, at: int, draft: list[int]) -> None:
        """As many tokens as the draft foresaw, and the one behind them."""
        assert stream.lookup is not None
        start = len(stream.tokens)
        batch = [stream.due, *draft]
        self._context.decode(batch, start, sequence=at, every=True)
        found = self._context.table(len(batch)).argmax(axis=1).tolist()
        right = next((n for n, token in enumerate(draft) if token != found[n]), len(draft))
        self._context.forget(start + 1 + right, sequence=at)
        stream.tokens += batch[: 1 + right]
        stream.lookup.learn(right)
        stream.take(found[: 1 + right])

    def _sample(self, stream: Stream, logits: Logits, index: int) -> int:
        """The next token of one stream; its row of logits is changed in place where a grammar
        forbids tokens."""
        if stream.matcher is not None:
            stream.matcher.forbid(logits)
        if stream.sampler is None:
            return int(np.argmax(logits))
        return self._context.sample(stream.sampler, index)

    def _failed(self, stream: Stream, error: ModelError) -> Ended:
        log.error("completion failed", error=error.detail)
        return self._release(stream, Failed("engine_error", error.detail))


_TOO_SLOW = Failed("deadline_exceeded", "The engine did not finish in the time allowed.")
