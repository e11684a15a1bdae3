"""What the three kinds of server behind one client can do, and how each wants to be asked.

llama.cpp, vLLM and Groq speak one protocol and differ in a few fields: one record for each, and no
``if`` on a server's name anywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

from appliance.errors import ModelRejected
from appliance.llm.interface import Capabilities, Structured

TOP_LOGPROBS: Final = 20
"""Most alternatives to a token that vLLM tells, unless its administrator raised the limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect(Capabilities):
    """Capabilities, and the fields they go by.

    ``scores`` says where the probabilities of choices come from: told by the server for each
    choice, or worked out from the alternatives to the first token.
    """

    field: Literal["structured_outputs", "response_format"]
    scores: Literal["told", "first_token"] | None = None
    limit: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    running_counts: bool = True
    """Whether a stream can count its tokens as it goes; a server that cannot may refuse the
    option."""

    def fields(self, structured: Structured) -> dict[str, Any]:
        """The fields of a request that constrain its completion.

        :raises ModelRejected: a constraint this server does not know. It would be refused there, or
            worse, ignored.
        """
        kind = structured.kind
        if kind not in self.constraints:
            raise ModelRejected(f"This backend cannot constrain an answer by {kind}.")
        value = getattr(structured, kind)
        if self.field == "response_format":
            schema = {"name": "answer", "schema": value}
            return {"response_format": {"type": "json_schema", "json_schema": schema}}
        asked: dict[str, Any] = {self.field: {kind: value}}
        if kind == "choice" and self.scores == "first_token":
            asked |= {"logprobs": True, "top_logprobs": TOP_LOGPROBS}
        return asked


ENGINE: Final = Dialect(
    constraints=frozenset(("choice", "regex", "json", "grammar")),
    choice_scores=True,
    field="structured_outputs",
    scores="told",
)
"""Our own process around llama.cpp."""

VLLM: Final = Dialect(
    constraints=frozenset(("choice", "regex", "json", "grammar")),
    choice_scores=True,
    field="structured_outputs",
    scores="first_token",
)

GROQ: Final = Dialect(
    constraints=frozenset(("json",)),
    choice_scores=False,
    remote=True,
    field="response_format",
    limit="max_completion_tokens",
    running_counts=False,
)
