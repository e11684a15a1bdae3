"""What an answer is made with: weights, prompts, encoder, heads, index, runtime."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import metadata, resources
from typing import Any, Final, get_args

from appliance import __version__
from appliance.domain.chain import canonical
from appliance.domain.record import MadeWith
from appliance.domain.state import QueryState
from appliance.graph.routes import Responder

RESPONDERS: Final[tuple[str, ...]] = get_args(Responder)
RUNTIME: Final = ("llama-cpp-python", "onnxruntime", "faiss-cpu", "numpy", "scikit-learn")
"""Packages whose version may change a number or a word."""


def _unknown() -> str | None:
    return None


@dataclass(frozen=True, slots=True)
class Provenance:
    """Asked once for every answer, so it looks things up and hashes nothing.

    :param weights: the SHA-256 of the weights of the model of that name, if known.
    :param heads: the fingerprint of the heads in charge.
    :param index: the fingerprint of the index that was searched last.
    """

    weights: Callable[[str], str | None] = lambda model: None
    heads: Callable[[], str | None] = _unknown
    index: Callable[[], str | None] = _unknown
    encoder: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __call__(
        self, state: QueryState, model: str | None, knowledge: tuple[int, str]
    ) -> MadeWith:
        """What this answer was made with.

        :param model: the model that took part, or None.
        :param knowledge: version and digest of the articles when the query began.
        """
        responder = next((node for node in state["stages"] if node in RESPONDERS), None)
        return MadeWith(
            model=model,
            weights=None if model is None or state["answer"].remote else self.weights(model),
            prompts=prompt_digest(responder),
            responder=responder,
            knowledge_version=knowledge[0],
            knowledge_digest=knowledge[1],
            index=self.index(),
            encoder=self.encoder,
            heads=self.heads(),
            settings=self.settings,
            runtime=runtime(),
        )


@cache
def prompt_digest(responder: str | None) -> str | None:
    """SHA-256, in hex, of the prompts a responder may use: its own and those that all share; None
    for one that has none."""
    found = {
        file.name.removesuffix(".md"): file.read_text("utf-8")
        for file in resources.files("appliance.agents").joinpath("prompts").iterdir()
        if file.name.endswith(".md")
    }
    if responder not in found:
        return None
    used = {name: text for name, text in found.items() if name not in {*RESPONDERS} - {responder}}
    return hashlib.sha256(canonical(used).encode()).hexdigest()


@cache
def runtime() -> dict[str, str | None]:
    """Versions of this build."""
    return {"appliance": __version__} | {name: _version(name) for name in RUNTIME}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
