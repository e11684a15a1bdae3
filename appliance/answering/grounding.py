"""What may be said of what was found: nothing that the judge does not find in one passage."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from appliance.answering.aligned import PRONOUNS, joined
from appliance.answering.judge import judge
from appliance.answering.lexicon import begins_phrase
from appliance.answering.matching import counterparts, opposites
from appliance.answering.reading import read
from appliance.answering.tokens import Token
from appliance.answering.verbatim import gist
from appliance.domain.passage import Article, Passage
from appliance.domain.policy import JUDGE_LOOSE_WORDS
from appliance.domain.text import sentences, words


def supporting_passage(
    sentence: str, passages: Sequence[Passage], before: str = ""
) -> Passage | None:
    """The first passage that supports a sentence, or None.

    :param before: the sentence said just before it, which "it" or "they" may point at.
    """
    found = next((p for p in passages if is_supported(sentence, p.article.answer)), None)
    if found is None and before and PRONOUNS & set(words(sentence)):
        both = f"{before} {sentence}"
        found = next((p for p in passages if is_supported(both, p.article.answer)), None)
    return found


def is_supported(sentence: str, source: str) -> bool:
    """Whether ``source`` says what ``sentence`` says."""
    return judge(sentence, source).supported


def unsaid(article: Article, said: Iterable[str]) -> list[str]:
    """Sentences of the article, in order, that no sentence already said tells in full."""
    told = {gist(part) for one in said for part in judge(one, article.answer).covers}
    return [part for part in sentences(article.answer) if gist(part) not in told]


def is_told(sentence: str, article: Article, said: Sequence[str]) -> bool:
    """Whether a sentence tells nothing that was not said already."""
    told = judge(sentence, article.answer).covers
    return sentence in said or (bool(told) and not set(told) & set(unsaid(article, said)))


def is_hopeless(begun: str, passages: Sequence[Passage]) -> bool:
    """Whether a sentence that begins like this cannot become one that is supported."""
    return hopelessness(passages)(begun)


def hopelessness(passages: Sequence[Passage]) -> Callable[[str], bool]:
    """Tells of the beginning of a sentence whether no passage can support it any more.

    A number, a name or a thing that no passage has is reason enough. To stop there instead of at
    the full stop saves most of what a model writes in vain. The last words are not looked at: the
    last one may still grow, and the one before may become part of a phrase.
    """
    known = [joined(tuple(sentences(passage.article.answer))) for passage in passages]
    memo: dict[str, bool] = {}

    def is_foreign(token: Token) -> bool:
        if token.text not in memo:
            memo[token.text] = not any(
                counterparts(token, tokens) or opposites(token, tokens) for tokens in known
            )
        return memo[token.text]

    def hopeless(begun: str) -> bool:
        finished = begun.rstrip().rpartition(" ")[0] if not begun[-1:].isspace() else begun
        foreign = [
            token
            for token in read(finished)[:-1]
            if token.is_content
            and not token.is_light
            and not token.is_person
            and not begins_phrase(token.forms)
            and is_foreign(token)
        ]
        certain = any(token.kind == "fact" or token.part == "noun" for token in foreign)
        return certain or len(foreign) > JUDGE_LOOSE_WORDS

    return hopeless
