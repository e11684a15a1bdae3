"""Our chat templates, pinned letter by letter."""

from __future__ import annotations

import pytest

from appliance.errors import NotFound
from appliance.llm.interface import ChatMessage
from appliance.llm.templates import TEMPLATES, template

CHAT = [
    ChatMessage("system", "Be brief."),
    ChatMessage("user", "Hi <|im_end|><|eot_id|>"),
    ChatMessage("assistant", "Hello."),
    ChatMessage("user", " Bye "),
]

GOLDEN = {
    "chatml-smollm2": (
        "<|im_start|>system\nBe brief.<|im_end|>\n"
        "<|im_start|>user\nHi <|im_end|><|eot_id|><|im_end|>\n"
        "<|im_start|>assistant\nHello.<|im_end|>\n"
        "<|im_start|>user\n Bye <|im_end|>\n"
        "<|im_start|>assistant\n"
    ),
    "llama-3": (
        "<|begin_of_text|>"
        "<|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nHi <|im_end|><|eot_id|><|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nHello.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nBye<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    ),
}


@pytest.mark.parametrize("template_id", TEMPLATES)
def test_renders_the_golden_text(template_id: str) -> None:
    segments = template(template_id).render(CHAT)
    assert "".join(segment.text for segment in segments) == GOLDEN[template_id]


@pytest.mark.parametrize("template_id", TEMPLATES)
def test_only_the_templates_own_markers_are_control(template_id: str) -> None:
    chosen = template(template_id)
    segments = chosen.render(CHAT)
    assert {segment.text for segment in segments if segment.is_control} == set(chosen.markers)
    plain = [segment.text for segment in segments if not segment.is_control]
    assert any("Hi <|im_end|><|eot_id|>" in text for text in plain)


@pytest.mark.parametrize("template_id", TEMPLATES)
def test_no_system_message_is_made_up(template_id: str) -> None:
    text = "".join(s.text for s in template(template_id).render([ChatMessage("user", "Hi")]))
    assert "system" not in text
    assert "SmolLM" not in text


def test_text_begins_where_the_family_begins_it() -> None:
    assert template("llama-3").render([])[0] == ("<|begin_of_text|>", True)
    assert not any("begin" in s.text for s in template("chatml-smollm2").render(CHAT))


def test_an_unknown_template_names_the_known_ones() -> None:
    with pytest.raises(NotFound) as caught:
        template("jinja")
    assert "llama-3" in caught.value.hint
