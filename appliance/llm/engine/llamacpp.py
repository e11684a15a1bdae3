"""llama.cpp's C functions behind three typed classes. The only module that imports ``llama_cpp``.

The low-level functions and not ``llama_cpp.Llama``: chunked prefill, a prefix cache of our own and
a cancel that works inside a computation need them. A ``Model`` may be read by any thread; a
``Context`` belongs to the thread that made it, because two threads in one context abort the
process.
"""

from __future__ import annotations

import ctypes
import os
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from appliance.errors import ModelError, WeightsError
from appliance.llm.engine.work import CancelFlag, Sampling, Threads

_SPINS = 300
_SMALL_MACHINE_CORES = 4

# OpenMP threads meet some 600 times a token and by default spin while they wait. As soon as another
# process wants one of the cores, they spin for a thread that is not running: on two cores with one
# other busy process, 60 tokens took 4 to 26 s instead of 0.4 s. With a short spin and then sleep
# they take 1 s (0.46 s on an idle machine). Waking many threads costs more, so larger machines keep
# the default. It must be in the environment before the library is loaded; an operator's own value
# wins.
if (os.cpu_count() or 1) <= _SMALL_MACHINE_CORES:
    os.environ.setdefault("GOMP_SPINCOUNT", str(_SPINS))

import llama_cpp.llama_cpp as _c  # noqa: E402 - see above

FILE_TYPES: dict[str, int] = {
    "Q4_0": _c.LLAMA_FTYPE_MOSTLY_Q4_0,
    "Q8_0": _c.LLAMA_FTYPE_MOSTLY_Q8_0,
    "BF16": _c.LLAMA_FTYPE_MOSTLY_BF16,
}
"""Types :func:`quantize` can make."""

_ERROR_LEVEL = 4  # ggml.h's GGML_LOG_LEVEL_ERROR; the package's own table is one behind
_complaints: deque[str] = deque(maxlen=3)


@_c.llama_log_callback  # type: ignore[untyped-decorator]
def _log_line(level: int, text: bytes, _user_data: object) -> None:
    # Kept for the error we raise rather than logged: a computation that is stopped on request
    # complains, too, and everything below an error is chatter, hundreds of lines a start.
    if level == _ERROR_LEVEL:
        _complaints.append(text.decode("utf-8", "replace").strip())


def _complaint() -> str:
    """What the library said about the failure that has just happened."""
    said = "; ".join(_complaints)
    _complaints.clear()
    return said or "no reason given"


def _load_processor_code() -> None:
    """A portable build has its code in files of their own, one for each generation of processors;
    llama.cpp loads the best one it finds. Named is the package's own folder: by default it would
    look in the current one."""
    # Through the library that uses it: libggml.so opened by name would be a second copy of it.
    ggml = _c._lib
    ggml.ggml_backend_reg_count.restype = ctypes.c_size_t
    if ggml.ggml_backend_reg_count() == 0:
        folder = Path(_c.__file__).with_name("lib")
        ggml.ggml_backend_load_all_from_path(ctypes.c_char_p(os.fsencode(folder)))


_c.llama_log_set(_log_line, ctypes.c_void_p(0))
_c.llama_backend_init()
_load_processor_code()

# bool (*)(void *) is what llama.cpp wants to ask; size_t strlen(const char *) is what answers
# without the interpreter: an empty string is 0, "go on", and a set flag is a string of length 1,
# "stop".
_stop_asked = ctypes.cast(ctypes.CDLL(None).strlen, _c.ggml_abort_callback)


def version() -> str:
    """The library's version; results and speeds may change with it."""
    import llama_cpp

    return str(llama_cpp.__version__)


def quantize(source: Path, target: Path, file_type: str, *, threads: int) -> None:
    """Write ``source`` again with its tensors in another type.

    :raises WeightsError: llama.cpp could not, for lack of room for example; ``target`` may be half
        written.
    """
    parameters = _c.llama_model_quantize_default_params()
    parameters.ftype = FILE_TYPES[file_type]
    parameters.nthread = threads
    parameters.allow_requantize = True
    code = _c.llama_model_quantize(
        os.fsencode(source), os.fsencode(target), ctypes.byref(parameters)
    )
    if code != 0:
        raise WeightsError(f"{source.name} could not be turned into {file_type}: {_complaint()}.")


class Model:
    """Loaded weights and their vocabulary.

    :raises WeightsError: llama.cpp cannot read the file.
    """

    def __init__(self, path: Path) -> None:
        self._model: Any = _c.llama_model_load_from_file(
            os.fsencode(path), _c.llama_model_default_params()
        )
        if not self._model:
            raise WeightsError(f"{path.name} cannot be loaded: {_complaint()}.")
        self._vocab: Any = _c.llama_model_get_vocab(self._model)
        self.vocabulary = int(_c.llama_vocab_n_tokens(self._vocab))
        self.trained_context = int(_c.llama_model_n_ctx_train(self._model))
        self._pieces: dict[int, bytes] = {}
        self.file_type = (_c.llama_ftype_name(_c.llama_model_ftype(self._model)) or b"?").decode()

    @property
    def cache_bytes(self) -> int:
        """Bytes of KV cache that one token takes."""
        heads = _c.llama_model_n_head_kv(self._model)
        width = _c.llama_model_n_embd(self._model) // _c.llama_model_n_head(self._model)
        keys_and_values, bytes_each = 2, 2
        return int(
            _c.llama_model_n_layer(self._model) * heads * width * keys_and_values * bytes_each
        )

    @property
    def handle(self) -> Any:
        """What the library calls this model."""
        return self._model

    def tokenize(self, text: str, *, control: bool) -> list[int]:
        """Tokens of a text; only with ``control`` may a marker in it become a special token."""
        data = text.encode("utf-8", "replace")
        room = len(data) + 8
        tokens = (_c.llama_token * room)()
        count = _c.llama_tokenize(self._vocab, data, len(data), tokens, room, False, control)
        if count < 0:
            raise ModelError(f"The tokenizer gave up on {len(data)} bytes.")
        return list(tokens[:count])

    def piece(self, token: int) -> bytes:
        """The bytes of a token, maybe only part of a character; none for control tokens."""
        known = self._pieces.get(token)
        if known is None:
            size = 256
            while True:
                buffer = ctypes.create_string_buffer(size)
                count = _c.llama_token_to_piece(self._vocab, token, buffer, size, 0, False)
                if count >= 0:
                    break
                size = -count
            known = self._pieces[token] = buffer.raw[:count]
        return known

    def is_control(self, token: int) -> bool:
        """Whether a token is part of the conversation's structure, or ends it."""
        return bool(
            _c.llama_vocab_is_control(self._vocab, token)
            or _c.llama_vocab_is_eog(self._vocab, token)
        )

    def close(self) -> None:
        """Give the memory back. Contexts must be closed before."""
        if self._model:
            _c.llama_model_free(self._model)
            self._model = None


class Context:
    """Sequences of tokens and their KV cache, evaluated in batches of at most ``batch`` tokens.

    Every sequence has a buffer of its own, ``length`` tokens long. In one shared buffer each token
    would be compared with the cells of all sequences and the foreign ones masked out afterwards:
    sixteen answers at once took a third longer. The price: sequences in one batch are computed
    together only where their numbers are consecutive, and ``llama_memory_seq_cp`` copies a whole
    buffer, used or not. So :meth:`save` and :meth:`restore` copy what is there: 150 tokens of the
    embedded model take a millisecond each way, a twentieth of copying the buffer.

    Flash attention is off. Its result for a token depends on how the prompt was cut into batches
    (logits moved by up to 1.0), and a greedy answer would depend on what the cache held before.
    Without it, all batches of two tokens or more give the same bits, for a tenth more time on a
    prompt of 150 tokens and none on one of 4,000.
    """

    def __init__(
        self,
        model: Model,
        *,
        length: int,
        batch: int,
        threads: Threads,
        sequences: int = 1,
    ) -> None:
        parameters = _c.llama_context_default_params()
        parameters.n_ctx = length * sequences
        parameters.n_seq_max = sequences
        parameters.n_batch = parameters.n_ubatch = batch
        parameters.n_threads = threads.single
        parameters.n_threads_batch = threads.batch
        parameters.flash_attn_type = _c.LLAMA_FLASH_ATTN_TYPE_DISABLED
        parameters.no_perf = True
        self._context: Any = _c.llama_init_from_model(model.handle, parameters)
        if not self._context:
            raise WeightsError(
                f"No context of {sequences} times {length} tokens could be made: {_complaint()}."
            )
        self.length = int(_c.llama_n_ctx_seq(self._context))
        self._memory: Any = _c.llama_get_memory(self._context)
        self._vocabulary = model.vocabulary
        self._rows = _Batch(batch)
        self._watched: CancelFlag | None = None

    def watch(self, flag: CancelFlag) -> None:
        """Stop any computation from now on as soon as ``flag`` is set."""
        self._watched = flag  # keeps its memory alive for as long as the library looks at it
        _c.llama_set_abort_callback(self._context, _stop_asked, ctypes.c_void_p(flag.address))

    def decode(
        self,
        tokens: Sequence[int] | NDArray[np.int32],
        start: int,
        *,
        sequence: int = 0,
        every: bool = False,
    ) -> bool:
        """Evaluate ``tokens`` at positions from ``start`` on; False if the watched flag stopped it.

        Afterwards :meth:`logits` and :meth:`sample` speak of the last token; with ``every``,
        :meth:`logits` of each. After False the positions from ``start`` on must be forgotten.

        :raises ModelError: the library failed; the cache's content from ``start`` on is unknown.
        """
        count = len(tokens)
        rows = self._rows
        rows.tokens[:count] = tokens
        rows.positions[:count] = np.arange(start, start + count)
        rows.sequences[:count] = sequence
        rows.wanted[:count] = every
        rows.wanted[count - 1] = True
        return self._decode(count)

    def decode_each(
        self, tokens: Sequence[int], positions: Sequence[int], sequences: Sequence[int]
    ) -> bool:
        """Evaluate one token of each of several sequences, whose numbers rise.

        False if the watched flag stopped it. Afterwards :meth:`table` holds a row of logits for
        each.

        :raises ModelError: the library failed; the cache of these sequences is unknown.
        """
        count = len(tokens)
        rows = self._rows
        rows.tokens[:count] = tokens
        rows.positions[:count] = positions
        rows.sequences[:count] = sequences
        rows.wanted[:count] = True
        return self._decode(count)

    def _decode(self, count: int) -> bool:
        code = _c.llama_decode(self._context, self._rows.of(count))
        if code not in (0, 2):
            raise ModelError(f"llama_decode answered {code} on {count} tokens: {_complaint()}.")
        _complaints.clear()
        return bool(code == 0)

    def forget(self, position: int = 0, *, sequence: int = 0) -> None:
        """Drop everything from ``position`` on out of a sequence's cache."""
        _c.llama_memory_seq_rm(self._memory, sequence, position, -1)

    def saved_size(self, sequence: int) -> int:
        """Bytes that a copy of a sequence's cache takes."""
        return int(_c.llama_state_seq_get_size(self._context, sequence))

    def save(self, sequence: int) -> ctypes.Array[ctypes.c_uint8]:
        """A copy of a sequence's cache."""
        size = self.saved_size(sequence)
        buffer: ctypes.Array[ctypes.c_uint8] = (ctypes.c_uint8 * size)()
        written = _c.llama_state_seq_get_data(self._context, buffer, size, sequence)
        if written != size:
            raise ModelError(f"The cache of a sequence could not be copied: {_complaint()}.")
        return buffer

    def restore(self, sequence: int, saved: ctypes.Array[ctypes.c_uint8]) -> None:
        """Replace a sequence's cache by a copy that any context of the model saved.

        :raises ModelError: it does not fit; the sequence is empty then.
        """
        self.forget(sequence=sequence)
        if not _c.llama_state_seq_set_data(self._context, saved, len(saved), sequence):
            self.forget(sequence=sequence)
            raise ModelError(f"A saved cache could not be taken back: {_complaint()}.")

    def logits(self, index: int = -1) -> NDArray[np.float32]:
        """Scores of shape (vocabulary,) after a token of the last batch; valid until the next."""
        pointer = _c.llama_get_logits_ith(self._context, index)
        return np.ctypeslib.as_array(pointer, shape=(self._vocabulary,))

    def table(self, count: int) -> NDArray[np.float32]:
        """Scores of shape (count, vocabulary) after the last batch; valid until the next."""
        pointer = _c.llama_get_logits(self._context)
        return np.ctypeslib.as_array(pointer, shape=(count, self._vocabulary))

    def sample(self, sampler: Sampler, index: int = -1) -> int:
        """Choose the token that follows a token of the last batch."""
        return int(_c.llama_sampler_sample(sampler.handle, self._context, index))

    def close(self) -> None:
        """Give the memory back."""
        if self._context:
            _c.llama_free(self._context)
            self._context = None


class _Batch:
    """The arrays of a ``llama_batch``, kept and filled again for every call.

    Made here and not by ``llama_batch_init``, which gives each token an array of its own for its
    sequence: filling those one by one from Python took longer than sampling.
    """

    def __init__(self, size: int) -> None:
        self.tokens = np.zeros(size, dtype=np.int32)
        self.positions = np.zeros(size, dtype=np.int32)
        self.sequences = np.zeros(size, dtype=np.int32)
        self.wanted = np.zeros(size, dtype=np.int8)
        self._one_each = np.ones(size, dtype=np.int32)
        first = self.sequences.ctypes.data
        self._pointers = first + self.sequences.itemsize * np.arange(size, dtype=np.uint64)
        self._batch = _c.llama_batch(
            n_tokens=0,
            token=self.tokens.ctypes.data_as(ctypes.POINTER(_c.llama_token)),
            embd=None,
            pos=self.positions.ctypes.data_as(ctypes.POINTER(_c.llama_pos)),
            n_seq_id=self._one_each.ctypes.data_as(ctypes.POINTER(ctypes.c_int32)),
            seq_id=self._pointers.ctypes.data_as(ctypes.POINTER(ctypes.POINTER(_c.llama_seq_id))),
            logits=self.wanted.ctypes.data_as(ctypes.POINTER(ctypes.c_int8)),
        )

    def of(self, count: int) -> Any:
        """The batch of the first ``count`` tokens."""
        self._batch.n_tokens = count
        return self._batch


class Sampler:
    """A chain that chooses tokens: greedy, or temperature and then the nucleus, as in vLLM."""

    def __init__(self, sampling: Sampling) -> None:
        self.handle: Any = _c.llama_sampler_chain_init(_c.llama_sampler_chain_default_params())
        if sampling.temperature == 0.0:
            stages = [_c.llama_sampler_init_greedy()]
        else:
            seed = int.from_bytes(os.urandom(4)) if sampling.seed is None else sampling.seed
            stages = [
                _c.llama_sampler_init_temp(sampling.temperature),
                _c.llama_sampler_init_top_p(sampling.top_p, 1),
                _c.llama_sampler_init_dist(seed % _c.LLAMA_DEFAULT_SEED),
            ]
        for stage in stages:
            _c.llama_sampler_chain_add(self.handle, stage)

    def close(self) -> None:
        """Give the memory back."""
        _c.llama_sampler_free(self.handle)
