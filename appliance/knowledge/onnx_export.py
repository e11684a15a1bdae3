"""Makes the ONNX graph of a sentence-transformers folder and checks it against the model itself.

A process of its own, ``python -m appliance.knowledge.onnx_export FOLDER TARGET``, so that the
memory torch takes returns when it ends. It prints one JSON object: ``{"sha256"}`` of the graph at
TARGET, or ``{"refused"}`` with the reason why this model has none. Any other end says nothing about
the model: a full disk, a kill.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import signal
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from appliance.errors import WeightsError
from appliance.knowledge.embedding import Embedder, SentenceTransformerEmbedder, Vectors
from appliance.knowledge.onnx_embedding import OUTPUT, TOKENS, OnnxEmbedder
from appliance.knowledge.tokenizing import COLUMNS
from appliance.knowledge.tokens import Tokens, unit
from appliance.settings import enforce_offline

OPSET = 17
"""The first with LayerNormalization as one operator."""
COSINE_MIN = 0.9999
DIFFERENCE_MAX = 1e-4
"""Largest difference of any component, so that what was indexed with one runtime is found with the
other. Seen on the packaged model: 2e-7."""

_PR_SET_PDEATHSIG = 1

PROBES = (
    "How do I reset my password?",
    "refund",
    "WHY IS MY INVOICE WRONG?? I was charged TWICE this month!!!",
    "The app crashes when I export a document larger than 200 MB, and the log says E-4012.",
    "",
    " ",
    "\t\n  \u00a0",
    "  Leading and trailing blanks are part of what people send.  \n",
    "👍",
    "Great service 🎉🎉🎉 thank you so much 😀",
    "👩‍👩‍👧‍👦 \ufe0f\u200d",
    "Wie ändere ich meine Rechnungsadresse? Die Übersicht zeigt noch die alte.",
    "¿Cómo puedo cancelar mi suscripción?",
    "パスワードを忘れました。どうすればいいですか？",
    "我想申请退款，但是找不到按钮。",
    "Как связаться с поддержкой?",
    "كيف يمكنني تغيير كلمة المرور؟",
    "मैं अपना पासवर्ड भूल गया",
    "e\u0301 is é, \uff21 is A, \u0130 and ß have no simple lower case",
    "https://desk.example/reset?token=abc123&next=%2Fhome or mail me: ada@example.org",
    "<script>alert('x')</script> [CLS] [SEP] [PAD] {{ name }} \\ \x00 \x07",
    "a" * 300,
    "-" * 400,
    "Please cancel order 12345. " * 20,
    "First the printer stopped, then the scanner, and since Monday nothing at all works. " * 60,
    "слово " * 700,
)
"""Texts on which both have to agree: short, longer than the model reads, empty, blank, odd signs,
other scripts, and words that look like the tokenizer's own."""


def export(folder: Path, target: Path) -> None:
    """Write the graph: tokens in, unit vectors of the texts and of their tokens out; any number of
    texts of any length.

    :raises WeightsError: the exporter has no words for this model.
    """
    import torch
    from sentence_transformers import SentenceTransformer

    # Attention in plain operators: fewer nodes than the fused one, at the same speed.
    model: Any = SentenceTransformer(
        str(folder),
        device="cpu",
        local_files_only=True,
        model_kwargs={"attn_implementation": "eager"},
    ).eval()
    # Two lengths, so that padding and its mask are in what is traced.
    features = model.preprocess(["How do I reset my password?", "refund"])
    columns = [column for column in COLUMNS if column in features]

    class UnitVectors(torch.nn.Module):
        """The whole chain of the folder, pooling included, and what each token was before it, their
        lengths made 1."""

        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *tensors: Any) -> Any:
            made = self.model(dict(zip(columns, tensors, strict=True)))
            return tuple(
                torch.nn.functional.normalize(made[name], dim=-1)
                for name in ("sentence_embedding", "token_embeddings")
            )

    axes = {column: {0: "texts", 1: "tokens"} for column in columns}
    try:
        with torch.no_grad():
            # The exporter by tracing: it needs the package onnx alone and 2 s; the newer one needs
            # onnxscript too and 15 s, for a graph of the same speed.
            torch.onnx.export(
                UnitVectors().eval(),
                tuple(features[column] for column in columns),
                str(target),
                input_names=columns,
                output_names=[OUTPUT, TOKENS],
                dynamic_axes=axes | {OUTPUT: {0: "texts"}, TOKENS: {0: "texts", 1: "tokens"}},
                opset_version=OPSET,
                dynamo=False,
            )
    except torch.onnx.OnnxExporterError as error:
        raise WeightsError(f"The exporter cannot express the model: {error}") from error


def check(reference: Embedder, graph: Embedder, texts: Sequence[str] = PROBES) -> None:
    """Compare a graph with the model itself, its texts in batches and one by one.

    :raises WeightsError: their vectors differ.
    """
    wanted = np.concatenate([reference.encode([text]) for text in texts])
    _compare(wanted, graph.encode(texts), "together")
    _compare(wanted, np.concatenate([graph.encode([text]) for text in texts]), "alone")
    rows, got = graph.encode_tokens(texts)
    _compare(wanted, rows, "with tokens")
    for at, (own, other) in enumerate(zip(reference.encode_tokens(texts)[1], got, strict=True)):
        _compare_tokens(at, own, other)


def _compare(wanted: Vectors, got: Vectors, how: str) -> None:
    if wanted.shape != got.shape:
        raise WeightsError(f"The vectors have shape {got.shape}, not {wanted.shape}.")
    norms = np.linalg.norm(wanted, axis=1) * np.linalg.norm(got, axis=1)
    cosines = np.einsum("ij,ij->i", wanted, got) / norms
    differences = np.abs(wanted - got).max(axis=1)
    # Written so that a NaN is a refusal.
    good = (cosines >= COSINE_MIN) & (differences <= DIFFERENCE_MAX)
    if not good.all():
        at = int(np.argmin(good))
        raise WeightsError(
            f"Text {at}, encoded {how}, has cosine {cosines[at]:.6f} to the model's own vector and"
            f" differs from it by {differences[at]:.1e}."
        )


def _compare_tokens(at: int, wanted: Tokens, got: Tokens) -> None:
    if wanted.ids.tolist() != got.ids.tolist():
        raise WeightsError(f"Text {at} is cut into other tokens.")
    cosines = np.einsum("ij,ij->i", unit(wanted.directions), unit(got.directions))
    # Rounded to a byte, a component may differ by a step of 127.
    if not (cosines >= COSINE_MIN).all():
        raise WeightsError(f"A token of text {at} has cosine {cosines.min():.6f} to the model's.")


def make(folder: Path, target: Path) -> dict[str, str]:
    """Export, check, and say what came of it; what is refused is removed."""
    reference = SentenceTransformerEmbedder(folder)
    try:
        export(folder, target)
        check(reference, OnnxEmbedder(target, folder, reference.fingerprint))
    except WeightsError as error:
        target.unlink(missing_ok=True)
        return {"refused": error.detail}
    with target.open("rb") as file:
        os.fsync(file.fileno())
        return {"sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def main(folder: str, target: str) -> None:
    """Entry of the process."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    enforce_offline()
    # Tracing warns about every shape it fixes; the check is what tells whether one mattered.
    warnings.simplefilter("ignore")
    sys.stdout.write(json.dumps(make(Path(folder), Path(target))) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
