"""What the technical, billing, account and general agents share: from passages to a grounded
answer.

The model drafts, and every sentence of the draft is judged before the customer sees it; or it names
the sentences to quote. What it leaves out of the sentences nearest to the query is said after it,
so that a weak model costs no facts: with nothing left of a draft, they are the answer. Where the
model is silent, the best article stands as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from importlib import resources
from string import Template

from appliance.answering import wording
from appliance.answering.drafting import DraftUsage, draft_sentences, unless_left
from appliance.answering.grounding import hopelessness, is_told, supporting_passage, unsaid
from appliance.answering.quoting import chosen, listed, quotable
from appliance.answering.selection import (
    fitting,
    for_prompt,
    is_certain,
    is_near,
    rivals,
    telling,
)
from appliance.domain.answer import Answer, Citation, Mode
from appliance.domain.passage import Article, Passage
from appliance.domain.policy import (
    ABSTAINED_SENTENCES,
    ANSWER_MAX_TOKENS,
    HANDOFF_ARTICLES,
    PROMPT_CHARS,
    QUOTED_SENTENCES,
    TURN_CHARS,
    AnswerMode,
    Intent,
)
from appliance.domain.query import Turn
from appliance.domain.state import QueryState, Run
from appliance.domain.text import sentences
from appliance.errors import ModelRejected, ModelUnavailable
from appliance.llm.interface import ChatMessage, ChatModel
from appliance.llm.structured import pick
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


@dataclass(slots=True)
class _Telling:
    """What an answer says so far, and on what it stands."""

    run: Run
    lead: str = "\n\n"
    """What stands before the next sentence: a paragraph's beginning, or a blank."""
    said: list[str] = field(default_factory=list)
    cited: dict[str, Passage] = field(default_factory=dict)
    cut: list[str] = field(default_factory=list)
    failures: tuple[str, ...] = ()

    async def say(self, sentence: str, source: Passage) -> None:
        """Tell the customer a sentence of an article."""
        await self.run.say(self.lead + sentence)
        self.lead = " "
        self.said.append(sentence)
        self.cited[source.article.id] = source

    async def turn_to(self, article: Article) -> None:
        """Begin a paragraph for another article's sentences; the first one is introduced."""
        if len(self.cited) == 1 and article.id not in self.cited:
            await self.run.say(f"\n\n{wording.ALSO}")
        self.lead = "\n\n"


class Responder:
    """One agent's way to answer; ``role`` names its prompt."""

    def __init__(self, model: ChatModel, role: str, mode: AnswerMode = "drafted") -> None:
        self._model = model
        self._mode = mode
        self._system = load_prompt(role)
        self._request = Template(load_prompt("request"))
        self._request_quoted = Template(load_prompt("request_quoted"))

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
        quoted = [] if self._failed_before(state) or not is_near(nearest) else _nearest(nearest)
        await run.say(wording.abstention(opening, nearest, [sentence for _, sentence in quoted]))
        return Answer(
            run.response,
            "abstained",
            citations=_citations(passage for passage, _ in quoted),
            flags=self.flags(query.text),
        )

    async def _from_passages(
        self, state: QueryState, run: Run, passages: tuple[Passage, ...]
    ) -> Answer:
        again = self._failed_before(state)
        certain = is_certain(passages)
        openings = wording.OPENINGS if certain else wording.UNCERTAIN_OPENINGS
        await run.say(wording.OPENING_AGAIN if again else openings[state["sentiment"]])
        told = _Telling(run)
        usage = DraftUsage()
        heard = await self._ask(state, passages, told, usage)
        written = bool(told.said)
        nearest = telling(self._candidates(state))
        # Without a word of the model: its invention was cut, or it is down and articles stand in.
        mode: Mode = self._mode if written else "quoted" if heard and nearest else "curated"
        if mode == "curated":
            nearest = [(p, sentences(p.article.answer)) for p in (passages[0], *rivals(passages))]
        for passage, wanted in nearest:
            rest = unsaid(passage.article, told.said)
            await self._tell(told, passage, [part for part in wanted if part in rest])
        if not certain:
            await run.say(f"\n\n{wording.OFFER}")
        return Answer(
            response=run.response,
            outcome="answered",
            mode=mode,
            citations=_citations(told.cited.values()),
            flags=self.flags(state["query"].text),
            model=usage.model,
            tokens=usage.tokens,
            cut=tuple(told.cut),
            # An answer of the articles alone holds no word that was written elsewhere.
            remote=usage.remote and written,
            failures=told.failures,
        )

    async def _ask(
        self, state: QueryState, passages: tuple[Passage, ...], told: _Telling, usage: DraftUsage
    ) -> bool:
        """Say what the model writes or chooses; return whether it was there to be asked."""
        try:
            if self._mode == "quoted":
                await self._quote(state, passages, told, usage)
            elif self._mode == "drafted":
                await self._draft(state, passages, told, usage)
        except ModelUnavailable as error:
            log.info("answered_without_model", reason=error.detail)
            return False
        except ModelRejected as error:
            # A defect of ours or of the settings. The customer is answered all the same; the
            # operator is told.
            log.error(error.code, reason=error.detail)
            told.failures = (error.code,)
            return False
        return self._mode != "curated"

    @staticmethod
    async def _tell(told: _Telling, source: Passage, parts: Sequence[str]) -> None:
        """Say sentences of one article, in a paragraph of their own where another was told."""
        if parts and told.cited and source.article.id not in told.cited:
            await told.turn_to(source.article)
        for part in parts:
            await told.say(part, source)

    async def _draft(
        self, state: QueryState, passages: tuple[Passage, ...], told: _Telling, usage: DraftUsage
    ) -> None:
        """Say what the model writes, as long as every sentence is supported."""
        stream = self._model.stream(
            self._messages(state, for_prompt(passages)), max_tokens=ANSWER_MAX_TOKENS
        )

        hopeless = hopelessness(passages)
        async with aclosing(draft_sentences(stream, usage, told.run.left, hopeless)) as draft:
            async for sentence in draft:
                before = told.said[-1] if told.said else ""
                source = supporting_passage(sentence, passages, before)
                if source is None:
                    told.cut.append(sentence)
                    break  # a model that has begun to invent goes on inventing
                if is_told(sentence, source.article, told.said):
                    break  # small models repeat themselves until the limit
                await told.say(sentence, source)

    async def _quote(
        self, state: QueryState, passages: tuple[Passage, ...], told: _Telling, usage: DraftUsage
    ) -> None:
        """Say the sentences whose numbers the model names."""
        choices = quotable(for_prompt(passages))
        request = self._request_quoted.substitute(
            history=_told(state["query"].history),
            query=_one_line(state["query"].text)[:PROMPT_CHARS],
            sentences=listed(choices),
        )
        messages = [ChatMessage("system", self._system), ChatMessage("user", request)]
        picked = await unless_left(
            told.run.left,
            pick(self._model, messages, count=len(choices), most=QUOTED_SENTENCES),
        )
        usage.tokens, usage.model, usage.remote = picked.usage, picked.model, picked.remote
        for quote in chosen(choices, picked.numbers):
            await told.say(quote.sentence, quote.passage)

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
            passages="\n\n".join(_one_block(p.article.answer)[:PROMPT_CHARS] for p in passages),
            history=_told(state["query"].history),
            sentiment=state["sentiment"].lower(),
            query=_one_line(state["query"].text)[:PROMPT_CHARS],
        )
        return [ChatMessage("system", self._system), ChatMessage("user", request)]


def _nearest(passages: tuple[Passage, ...]) -> list[tuple[Passage, str]]:
    """The sentences to quote where no article answers for certain."""
    found = [(passage, part) for passage, parts in telling(passages) for part in parts]
    return found[:ABSTAINED_SENTENCES]


def _citations(passages: Iterable[Passage]) -> tuple[Citation, ...]:
    """Each article once, in order."""
    articles = {passage.article.id: passage.article for passage in passages}
    return tuple(Citation(each.id, each.question) for each in articles.values())


def _told(history: tuple[Turn, ...]) -> str:
    """The latest exchange in a few words, or nothing."""
    return "".join(
        f"Earlier {turn.role}: {_one_line(turn.content)[:TURN_CHARS]}\n" for turn in history[-2:]
    )


def _one_line(text: str) -> str:
    """A person's words on one line: the prompt's parts begin on lines of their own, and nobody else
    begins one."""
    return " ".join(text.split())


def _one_block(text: str) -> str:
    """An article whose later lines are set in, for the same reason, and without blank ones."""
    return "\n  ".join(line for line in text.split("\n") if line.strip())
