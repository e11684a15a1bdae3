"""What a completion may have to be: one of some choices, or text that a grammar allows.

Choices need no text at all: their probabilities are read off after the prompt. Grammars, regular
expressions and JSON schemas are llguidance's business, the library behind vLLM's guidance backend.
It says which tokens may come next.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import numpy as np
from llguidance import LLMatcher, LLTokenizer
from llguidance._tokenizer import TokenizerWrapper
from llguidance.gbnf_to_lark import any_to_lark
from llguidance.numpy import allocate_token_bitmask, fill_next_token_bitmask
from numpy.typing import NDArray

from appliance.errors import ModelError

CHOICES_MAX: Final = 128
CHOICE_TOKENS_MAX: Final = 64

Logits = NDArray[np.float32]


class ConstraintError(Exception):
    """The constraint itself is wrong."""


@dataclass(frozen=True, slots=True)
class Choices:
    """Texts to choose from and their tokens; ``end`` is the token that ends an answer."""

    texts: tuple[str, ...]
    tokens: tuple[tuple[int, ...], ...]
    end: int

    def __post_init__(self) -> None:
        if not 1 <= len(self.texts) <= CHOICES_MAX:
            raise ConstraintError(f"There must be 1 to {CHOICES_MAX} choices.")
        if len(set(self.tokens)) < len(self.tokens):
            raise ConstraintError("Two choices are the same.")
        if not all(1 <= len(tokens) <= CHOICE_TOKENS_MAX for tokens in self.tokens):
            raise ConstraintError(f"A choice has 1 to {CHOICE_TOKENS_MAX} tokens.")

    @property
    def longest(self) -> int:
        """Tokens of the longest choice."""
        return max(map(len, self.tokens))

    def scores(self, logits_after: Callable[[tuple[int, ...]], Logits]) -> dict[str, float]:
        """Log probability of each choice among them.

        At every place where choices part ways the model's probabilities of the ways are taken and
        made to add up to 1. Where there is one way only nothing has to be evaluated.

        :param logits_after: scores of the next token after the prompt and these tokens; called
            with nothing first, and once for each further place.
        """
        ended = [(*tokens, self.end) for tokens in self.tokens]
        ways: dict[tuple[int, ...], list[int]] = {}
        for tokens in ended:
            for at, token in enumerate(tokens):
                following = ways.setdefault(tokens[:at], [])
                if token not in following:
                    following.append(token)
        step: dict[tuple[int, ...], float] = {}
        for before, following in sorted(ways.items(), key=lambda item: len(item[0])):
            if len(following) == 1:
                continue
            chances = logits_after(before)[following].astype(np.float64)
            chances -= chances.max()
            chances -= np.log(np.exp(chances).sum())
            step |= {
                (*before, token): float(chance)
                for token, chance in zip(following, chances, strict=True)
            }
        return {
            text: sum(step.get(tokens[: at + 1], 0.0) for at in range(len(tokens)))
            for text, tokens in zip(self.texts, ended, strict=True)
        }

    def pick(
        self, scores: Mapping[str, float], *, temperature: float, seed: int | None
    ) -> tuple[str, int]:
        """The choice and its number of tokens: the most probable, or drawn."""
        values = np.array([scores[text] for text in self.texts])
        if temperature > 0:
            values = values / temperature + np.random.default_rng(seed).gumbel(size=len(values))
        at = int(values.argmax())
        return self.texts[at], len(self.tokens[at])


@dataclass(frozen=True, slots=True)
class Grammar:
    """A checked grammar; every completion gets a matcher of its own."""

    text: str
    _tokenizer: LLTokenizer

    def matcher(self) -> Matcher:
        """A matcher at the beginning of a text."""
        return Matcher(LLMatcher(self._tokenizer, self.text), self._tokenizer.vocab_size)


@dataclass(slots=True)
class Matcher:
    """How far a completion has come in its grammar."""

    _matcher: LLMatcher
    _vocabulary: int
    _bits: Any = field(init=False)

    def __post_init__(self) -> None:
        self._bits = allocate_token_bitmask(1, self._vocabulary)

    def forbid(self, logits: Logits) -> None:
        """Make every token impossible that the grammar does not allow next; in place.

        :raises ModelError: the grammar grew too complex to be followed.
        """
        fill_next_token_bitmask(self._matcher, self._bits)
        self._check()
        allowed = np.unpackbits(self._bits[0].view(np.uint8), bitorder="little")
        logits[allowed[: len(logits)] == 0] = -np.inf

    def accept(self, token: int) -> None:
        """Go on behind a token."""
        self._matcher.consume_token(token)
        self._check()

    @property
    def complete(self) -> bool:
        """Whether nothing can follow any more."""
        return bool(self._matcher.is_stopped())

    def _check(self) -> None:
        if self._matcher.is_error():
            raise ModelError("The completion's grammar is too complex to be followed.")


class Vocabulary(Protocol):
    """The model's tokens, as llguidance has to know them."""

    vocabulary: int

    def tokenize(self, text: str, *, control: bool) -> list[int]: ...

    def piece(self, token: int) -> bytes: ...

    def is_control(self, token: int) -> bool: ...


class _Tokenizer:
    """The shape in which llguidance takes a vocabulary."""

    bos_token_id = None

    def __init__(self, vocabulary: Vocabulary, end: int) -> None:
        self._vocabulary = vocabulary
        self.eos_token_id = end
        every = range(vocabulary.vocabulary)
        self.special_token_ids = [token for token in every if vocabulary.is_control(token)]
        # A control token has no text; its name only has to differ from every text.
        names = {token: f"<control {token}>".encode() for token in self.special_token_ids}
        self.tokens = [names.get(token) or vocabulary.piece(token) for token in every]

    def __call__(self, text: str) -> list[int]:
        return self._vocabulary.tokenize(text, control=False)


class Compiler:
    """Turns the request's constraint into one the engine follows. Safe in any thread.

    :param end: the token that ends an answer.
    """

    def __init__(self, vocabulary: Vocabulary, end: int) -> None:
        self._vocabulary = vocabulary
        self._end = end
        self._lock = threading.Lock()
        self._known: LLTokenizer | None = None

    def choices(self, texts: Sequence[str]) -> Choices:
        """:raises ConstraintError: none, too many, too long, or two alike."""
        tokens = (tuple(self._vocabulary.tokenize(text, control=False)) for text in texts)
        return Choices(tuple(texts), tuple(tokens), self._end)

    def regex(self, pattern: str) -> Grammar:
        """:raises ConstraintError: the pattern is not a regular expression of the Rust dialect."""
        return self._checked(LLMatcher.grammar_from_regex(pattern))

    def json(self, schema: Mapping[str, Any]) -> Grammar:
        """:raises ConstraintError: not a JSON schema, or one with what cannot be followed."""
        try:
            # Without free white space a model cannot fill its limit with line breaks.
            options: Any = {"whitespace_flexible": False}
            return self._checked(
                LLMatcher.grammar_from_json_schema(json.dumps(schema), overrides=options)
            )
        except ValueError as error:
            raise ConstraintError(f"Not a JSON schema: {error}") from error

    def grammar(self, text: str) -> Grammar:
        """A grammar in Lark's or GBNF's notation.

        :raises ConstraintError: it is in neither.
        """
        try:
            lark = any_to_lark(text)
        except Exception as error:  # the converter has no error class of its own
            raise ConstraintError(f"Not a grammar: {error}.") from error
        return self._checked(LLMatcher.grammar_from_lark(lark))

    def _checked(self, grammar: str) -> Grammar:
        with self._lock:
            if self._known is None:
                # Half a second, and most desks never ask for it.
                wrapped = TokenizerWrapper(_Tokenizer(self._vocabulary, self._end))
                self._known = LLTokenizer(wrapped)
        wrong = LLMatcher.validate_grammar(grammar, self._known)
        if wrong:
            raise ConstraintError(wrong.strip().splitlines()[0])
        return Grammar(grammar, self._known)
