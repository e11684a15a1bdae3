"""What the technical, billing, account and general agents share: from passages to a grounded
answer.

The model drafts; every sentence of the draft is judged before the customer sees it. Where the model
is silent, wrong or stops short of the passage's point, the best article's own sentences finish the
answer.
"""

from __future__ import annotations

from contextlib import aclosing
from importlib import resources
from string import Template

from appliance.answering import wording
from appliance.answering.drafting import DraftUsage, draft_sentences
from appliance.answering.grounding import supporting_passage, unsaid
from appliance.answering.selection import fitting, for_prompt
from appliance.domain.answer import Answer, Citation, Mode
from appliance.domain.passage import Passage
from appliance.domain.policy import (
    ANSWER_MAX_TOKENS,
    HANDOFF_ARTICLES,
    PROMPT_CHARS,
    TURN_CHARS,
    Intent,
)
from appliance.domain.query import Turn
from appliance.domain.state import QueryState, Run
from appliance.errors import ModelRejected, ModelUnavailable
from appliance.llm.interface import ChatMessage, ChatModel
from appliance.logs import get_logger
from appliance.understanding.topics import reports_failure

log = get_logger()

SMALLTALK: tuple[Intent, ...] = ("thanks", "greeting", "offtopic", "confirmation")


def load_prompt(name: str) -> str:
    """The text of ``prompts/NAME.md``."""
    return (
        resources.files("appliance.agents")
        .joinpath("prompts", f"{name}.md")
        .read_text("utf-8")
        .strip()
    )


class Responder:
    """One agent's way to answer; ``role`` names its prompt."""

    def __init__(self, model: ChatModel, role: str) -> None:
        self._model = model
        self._system = load_prompt(role)
        self._request = Template(load_prompt("request"))

    async def __call__(self, state: QueryState, run: Run) -> QueryState:
        """Write the answer."""
        passages = fitting(self._candidates(state))
        if not passages:
            return {"answer": await self._without_passages(state, run)}
        return {"answer": await self._from_passages(state, run, passages)}

    def flags(self, text: str) -> tuple[str, ...]:
        """What a desk agent should notice in the message; none by default."""
        return ()

    async def _without_passages(self, state: QueryState, run: Run) -> Answer:
        query = state["query"]
        nearest = self._candidates(state)[:HANDOFF_ARTICLES]
        opening = wording.NOTHING_FURTHER if self._failed_before(state) else wording.ABSTENTION
        await run.say(wording.abstention(opening, nearest))
        return Answer(run.response, "abstained", flags=self.flags(query.text))

    async def _from_passages(
        self, state: QueryState, run: Run, passages: tuple[Passage, ...]
    ) -> Answer:
        again = self._failed_before(state)
        await run.say(wording.OPENING_AGAIN if again else wording.OPENINGS[state["sentiment"]])
        said: list[str] = []
        cut: list[str] = []
        cited: dict[str, Passage] = {}
        usage = DraftUsage()
        stream = self._model.stream(
            self._messages(state, for_prompt(passages)), max_tokens=ANSWER_MAX_TOKENS
        )
        try:
            async with aclosing(draft_sentences(stream, usage, run.left)) as draft:
                async for sentence in draft:
                    source = supporting_passage(sentence, passages)
                    if source is None:
                        cut.append(sentence)
                        break  # a model that has begun to invent goes on inventing
                    if sentence in said:
                        break  # small models repeat themselves until the limit
                    await self._say(run, sentence, first=not said)
                    said.append(sentence)
                    cited[source.article.id] = source
        except ModelUnavailable as error:
            log.info("answered_without_model", reason=error.detail)
        except ModelRejected as error:
            # A defect of ours or of the settings. The customer is answered all the same; the
            # operator is told.
            log.error("model_rejected", reason=error.detail)
        mode: Mode = "drafted" if said else "curated"
        best = passages[0]
        rest = unsaid(best.article, said)
        if cut or not said or best.nearest in rest:
            for sentence in rest:
                await self._say(run, sentence, first=not said)
                said.append(sentence)
                cited[best.article.id] = best
        return Answer(
            response=run.response,
            outcome="answered",
            mode=mode,
            citations=tuple(Citation(p.article.id, p.article.question) for p in cited.values()),
            flags=self.flags(state["query"].text),
            tokens=usage.tokens,
            cut=tuple(cut),
        )

    @staticmethod
    async def _say(run: Run, sentence: str, *, first: bool) -> None:
        await run.say(f"\n\n{sentence}" if first else f" {sentence}")

    @staticmethod
    def _failed_before(state: QueryState) -> bool:
        query = state["query"]
        return query.topic is not None and reports_failure(
            query.text, state.get("intent", "question")
        )

    def _candidates(self, state: QueryState) -> tuple[Passage, ...]:
        """Passages to answer from. An article that the customer says did not help is not told
        again."""
        passages = state.get("passages", ())
        topic = state["query"].topic
        if topic is None or not self._failed_before(state):
            return passages
        return tuple(p for p in passages if p.article.id != topic.article_id)

    def _messages(self, state: QueryState, passages: tuple[Passage, ...]) -> list[ChatMessage]:
        """The prompt. What changes least stands first, so that the model's cache of it is
        reused."""
        request = self._request.substitute(
            passages="\n\n".join(p.article.answer[:PROMPT_CHARS] for p in passages),
            history=_told(state["query"].history),
            sentiment=state["sentiment"].lower(),
            priority=state["priority"],
            query=state["query"].text[:PROMPT_CHARS],
        )
        return [ChatMessage("system", self._system), ChatMessage("user", request)]


def _told(history: tuple[Turn, ...]) -> str:
    """The latest exchange in a few words, or nothing."""
    return "".join(f"Earlier {turn.role}: {turn.content[:TURN_CHARS]}\n" for turn in history[-2:])
