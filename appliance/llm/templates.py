"""Our own chat templates, by id: from messages to segments the tokenizer can be trusted with.

Weights carry templates as Jinja programs; those are never run (CVE-2024-34359). A template here
yields segments: a control marker is tokenized as the one special token it is, everything else as
plain text. So a customer who types ``<|im_end|>`` types seven ordinary tokens and ends nobody's
turn.

A server that renders and tokenizes by itself, as vLLM does, cannot be trusted with that. It gets
the same template as a Jinja file of ours, and only text in which markers were broken before.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from appliance.errors import NotFound
from appliance.llm.interface import ChatMessage


class Segment(NamedTuple):
    """A stretch of a prompt; ``is_control`` marks a template's own marker, never content."""

    text: str
    is_control: bool


@dataclass(frozen=True, slots=True)
class Template:
    """``markers`` are the control tokens weights must have for the template to mean anything.

    ``others`` are what else the family's tokenizers take for one special token, besides all that
    begins with ``<|``.
    """

    id: str
    markers: tuple[str, ...]
    _render: Callable[[Sequence[ChatMessage]], list[Segment]]
    others: tuple[str, ...] = ()

    @property
    def end(self) -> str:
        """The marker that closes a message, and with it an answer."""
        return self.markers[-1]

    @property
    def jinja(self) -> Path:
        """A file with the same template, for servers that want it so."""
        return Path(__file__).parent / "jinja" / f"{self.id}.jinja"

    def render(self, messages: Sequence[ChatMessage]) -> list[Segment]:
        """The prompt up to where the model begins to answer. Nothing is added that was not given.

        A beginning-of-text token is one of the segments where the family wants it, so the tokenizer
        must add none itself.
        """
        return self._render(messages)


def _control(text: str) -> Segment:
    return Segment(text, True)


def _plain(text: str) -> Segment:
    return Segment(text, False)


def _smollm2(messages: Sequence[ChatMessage]) -> list[Segment]:
    # The shipped template puts "You are a helpful AI assistant named SmolLM" before prompts that
    # have no system message. Ours does not: what the model is told is the product's decision, and
    # costs tokens.
    segments: list[Segment] = []
    for message in messages:
        # Role and content are one plain segment, as in training: cut apart, white space at the
        # start of the content would become other tokens.
        segments += [
            _control("<|im_start|>"),
            _plain(f"{message.role}\n{message.content}"),
            _control("<|im_end|>"),
            _plain("\n"),
        ]
    return [*segments, _control("<|im_start|>"), _plain("assistant\n")]


def _llama3(messages: Sequence[ChatMessage]) -> list[Segment]:
    # As published for Llama 3, with content trimmed; 3.1 and later add "Cutting Knowledge Date" and
    # today's date to the system message, which would change every prompt at midnight for nothing.
    segments = [_control("<|begin_of_text|>")]
    for message in messages:
        segments += _llama3_header(message.role, message.content.strip())
        segments.append(_control("<|eot_id|>"))
    return segments + _llama3_header("assistant", "")


def _llama3_header(role: str, content: str) -> list[Segment]:
    return [
        _control("<|start_header_id|>"),
        _plain(role),
        _control("<|end_header_id|>"),
        _plain(f"\n\n{content}"),
    ]


_SMOLLM2_OTHERS = (
    "<repo_name>",
    "<reponame>",
    "<file_sep>",
    "<filename>",
    "<gh_stars>",
    "<issue_start>",
    "<issue_comment>",
    "<issue_closed>",
    "<jupyter_start>",
    "<jupyter_text>",
    "<jupyter_code>",
    "<jupyter_output>",
    "<jupyter_script>",
    "<empty_output>",
)

TEMPLATES: Final[dict[str, Template]] = {
    template.id: template
    for template in (
        Template("chatml-smollm2", ("<|im_start|>", "<|im_end|>"), _smollm2, _SMOLLM2_OTHERS),
        Template(
            "llama-3",
            ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
            _llama3,
        ),
    )
}


def template(template_id: str) -> Template:
    """The template with this id.

    :raises NotFound: with the ids there are in its hint.
    """
    try:
        return TEMPLATES[template_id]
    except KeyError:
        raise NotFound(
            f"No chat template is called {template_id!r}.",
            hint=f"Known templates: {', '.join(TEMPLATES)}.",
        ) from None


def neutralised(text: str, template: Template) -> str:
    """The text with every special token in it broken: ``<|im_end|>`` becomes ``< |im_end|>``.

    A change one can see, because an invisible one would have to be a character that tokenizers and
    readers disagree about. Doing it twice changes nothing more.
    """
    begun = "|".join([r"\|", *(re.escape(other[1:]) for other in template.others)])
    return re.sub(f"<(?={begun})", "< ", text)
