"""The pipeline that tutorials show, to compare with: three calls, one after the other, each with a
prompt of its own that is evaluated from its first token.

``python -m appliance.evaluation.bench.tutorial WEIGHTS TEMPLATE THREADS`` answers JSON lines: it is
a process of its own, because llama.cpp's high-level interface is loaded for nothing else.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any, Final

from appliance.llm.interface import ChatMessage
from appliance.llm.templates import Template, template

CONTEXT: Final = 4096
LABEL_TOKENS: Final = 8
CATEGORY: Final = (
    "You are an expert customer support agent. Sort the customer's query into one of these "
    "categories: Technical, Billing, Account, General. Technical is about errors, crashes, "
    "features and installation. Billing is about payments, invoices, refunds and subscriptions. "
    "Account is about sign-in, passwords and profile. General is everything else. Reply with the "
    "name of the category only."
)
SENTIMENT: Final = (
    "You are an expert in reading customers' emotions. Tell the sentiment of the customer's query: "
    "Positive, Neutral, Negative or Angry. Look at the choice of words, at punctuation and at "
    "urgency. Reply with the name of the sentiment only."
)
ANSWER: Final = (
    "You are a helpful, friendly and professional customer support agent. Answer the customer's "
    "query with the help of the articles of our knowledge base. Be clear and concise, give steps "
    "where they help, and adapt your tone to the customer's sentiment. If the articles do not "
    "help, say so and offer to contact a human agent."
)


class Pipeline:
    """One model, one customer at a time."""

    def __init__(self, path: str, chat: Template, threads: int) -> None:
        from llama_cpp import Llama

        self._template = chat
        self._model: Any = Llama(
            path,
            n_ctx=CONTEXT,
            n_threads=threads,
            n_threads_batch=threads,
            verbose=False,
        )

    def answer(self, query: str, passages: list[str], max_tokens: int) -> dict[str, Any]:
        """The three calls; seconds and tokens of each."""
        started = time.perf_counter()
        tokens = [0, 0]

        def call(system: str, user: str, limit: int) -> str:
            # Nothing is reused, as with an interface that is called anew for every request.
            self._model.reset()
            prompt = [
                token
                for text, control in self._template.render(
                    [ChatMessage("system", system), ChatMessage("user", user)]
                )
                for token in self._model.tokenize(text.encode(), add_bos=False, special=control)
            ]
            said = self._model.create_completion(prompt, max_tokens=limit, temperature=0.0)
            tokens[0] += said["usage"]["prompt_tokens"]
            tokens[1] += said["usage"]["completion_tokens"]
            return str(said["choices"][0]["text"]).strip()

        category = call(CATEGORY, f"Query: {query}", LABEL_TOKENS)
        sentiment = call(SENTIMENT, f"Query: {query}", LABEL_TOKENS)
        articles = "\n\n".join(passages)
        text = call(
            ANSWER,
            f"Category: {category}\nSentiment: {sentiment}\n\nArticles:\n{articles}\n\n"
            f"Query: {query}",
            max_tokens,
        )
        return {
            "seconds": time.perf_counter() - started,
            "prompt": tokens[0],
            "generated": tokens[1],
            "text": text,
        }


def main() -> None:
    """Answer a line for every line."""
    path, template_id, threads = sys.argv[1:]
    pipeline = Pipeline(path, template(template_id), int(threads))
    out = sys.stdout
    out.write('{"ready": true}\n')
    out.flush()
    for line in sys.stdin:
        asked = json.loads(line)
        answer = pipeline.answer(asked["query"], asked["passages"], asked["max_tokens"])
        out.write(json.dumps(answer) + "\n")
        out.flush()


if __name__ == "__main__":
    main()
