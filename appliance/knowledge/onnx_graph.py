"""Where the ONNX graph of the embedding model lies, and which embedder that gives.

The graph is made once a machine, by ``onnx_export`` in a process of its own, and kept under the
model's fingerprint with a note beside it: what it was made from and with, and its sha256. A graph
whose note does not fit is made anew. Whatever goes wrong costs speed and memory, never the start:
the model itself, on torch, gives the same vectors under the same fingerprint.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from appliance.errors import WeightsError
from appliance.knowledge.embedding import (
    Embedder,
    SentenceTransformerEmbedder,
    weights_fingerprint,
)
from appliance.knowledge.onnx_embedding import OnnxEmbedder
from appliance.logs import get_logger

log = get_logger()

LAYOUT = "tokens-to-unit-vectors/2"
"""Change the number with what ``onnx_export`` makes or checks."""
MADE_WITH = ("onnxruntime", "tokenizers", "torch", "transformers", "sentence-transformers")
"""Packages whose change is a reason to make and check the graph again."""
EXPORT_SECONDS = 120.0
"""Longest the export may take: 10 s were seen, loading torch from a cold disk 30 s. With the torch
embedder after it, it has to fit into what the service manager grants a start."""
SPARE_BYTES = 256 * 2**20
"""What must stay free on the disk once the graph is there: the database needs it more."""


class GraphStore:
    """The graph of one model folder in the folder ``store``, which is its alone to tidy."""

    def __init__(self, folder: Path, store: Path) -> None:
        self.fingerprint = weights_fingerprint(folder)
        self._folder = folder
        self._store = store
        self._key = _key(folder, self.fingerprint)
        self.graph = store / f"{self.fingerprint}.onnx"
        self._note = self.graph.with_suffix(".json")

    def note(self) -> dict[str, str]:
        """What is known of the graph: its ``sha256``, or why it was ``refused``; nothing where it
        has to be made."""
        try:
            note: Any = json.loads(self._note.read_bytes())
            return note if note["made_from"] == self._key else {}
        except (OSError, ValueError, KeyError, TypeError):
            return {}

    def is_whole(self) -> bool:
        """Whether the graph is there, as its note says."""
        try:
            with self.graph.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError:
            return False
        return found == self.note().get("sha256")

    def prepare(self) -> None:
        """Have the graph there, making it where it is not.

        :raises WeightsError: this model has none, the disk has no room, or the export failed.
        :raises OSError: the store cannot be written.
        """
        if not self.is_whole() and "refused" not in self.note():
            self._store.mkdir(mode=0o700, parents=True, exist_ok=True)
            with _alone(self._store):
                # Another process may have made it while this one waited.
                if not self.is_whole() and "refused" not in self.note():
                    self._make()
        refused = self.note().get("refused")
        if refused is not None:
            raise WeightsError(f"The ONNX graph of {self._folder} was refused. {refused}")

    def _make(self) -> None:
        if self.graph.exists():
            log.warning("embedding_graph_unfit", graph=str(self.graph))
        for left in self._store.iterdir():
            # Of a crash, or of a model before this one.
            if left.suffix in {".onnx", ".json", ".part"}:
                left.unlink()
        weights = sum(file.stat().st_size for file in self._folder.rglob("*.safetensors"))
        needed = weights + SPARE_BYTES
        free = shutil.disk_usage(self._store).free
        if free < needed:
            raise WeightsError(f"{free} bytes are free for the ONNX graph, {needed} are needed.")
        part = self.graph.with_suffix(".part")
        try:
            made = self._export(part)
            if "sha256" in made:
                part.replace(self.graph)
            part.write_text(json.dumps({"made_from": self._key, **made}), encoding="utf-8")
            part.replace(self._note)
        finally:
            part.unlink(missing_ok=True)
        log.info("embedding_graph_made", **made)

    def _export(self, target: Path) -> dict[str, str]:
        try:
            done = subprocess.run(  # noqa: S603 - a fixed command of ours
                [sys.executable, "-m", "appliance.knowledge.onnx_export", self._folder, target],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=EXPORT_SECONDS,
                check=True,
            )
            made: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
        except subprocess.TimeoutExpired as error:
            raise WeightsError(f"The export took over {EXPORT_SECONDS:.0f} s.") from error
        except subprocess.CalledProcessError as error:
            said = error.stderr.strip().splitlines() or [""]
            raise WeightsError(f"The export ended with {error.returncode}: {said[-1]}") from error
        except (ValueError, IndexError) as error:
            raise WeightsError("The export did not say what it made.") from error
        return made


def load_embedder(folder: Path, store: Path) -> Embedder:
    """The fastest embedder of a sentence-transformers folder that keeps its vectors. Blocking: some
    ten seconds at a machine's first start, under one later.

    :param store: folder for the graph, made where it is missing.
    :raises WeightsError: the folder holds no usable model at all.
    """
    try:
        graphs = GraphStore(folder, store)
        graphs.prepare()
        return OnnxEmbedder(graphs.graph, folder, graphs.fingerprint)
    except Exception as error:
        # Everything: ONNX Runtime's and the tokenizer's errors share no class, and with the model
        # itself at hand none of them is a reason not to answer customers.
        log.warning("embedding_without_onnx", reason=str(error))
    return SentenceTransformerEmbedder(folder)


def _key(folder: Path, fingerprint: str) -> str:
    """What a graph depends on: weights and tokenizer, every configuration file of the folder, the
    weights of its further layers, and the programs that make and run it."""
    digest = hashlib.sha256(f"{LAYOUT}\n{fingerprint}\n".encode())
    for name in MADE_WITH:
        digest.update(f"{name} {version(name)}\n".encode())
    for file in sorted(folder.rglob("*.json")):
        digest.update(f"{file.relative_to(folder)}\n".encode() + file.read_bytes())
    for file in sorted(folder.glob("*/*.safetensors")):
        digest.update(f"{file.relative_to(folder)}\n".encode() + file.read_bytes())
    return digest.hexdigest()


@contextmanager
def _alone(store: Path) -> Iterator[None]:
    """Wait until no other process makes a graph there; a killed one waits for nobody."""
    with (store / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
