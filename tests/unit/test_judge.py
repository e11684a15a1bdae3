"""The judge: what it lets stand for what, and what it never lets pass."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.answering.grounding import is_told, supporting_passage, unsaid
from appliance.answering.judge import Verdict, judge
from appliance.answering.lexicon import lexicon, opposed, table
from appliance.answering.operators import operator_phrases
from appliance.answering.reading import read
from appliance.domain.passage import Article
from appliance.domain.text import sentences
from appliance.errors import InvalidInput
from appliance.evaluation.judge import JudgePair, judge_report, read_pairs
from tests.builders import PASSWORD, REFUND, passage

PAIRS = read_pairs(Path(__file__).parents[1] / "judge" / "development.jsonl")
KEPT = [pair for pair in PAIRS if pair.supported and judge(pair.sentence, pair.passage).supported]

CARD = (
    "A lost card is blocked in the app under Cards > Block, or by phone on 0800 555 014. "
    "A replacement costs €12 and usually arrives within 5 working days, because it is printed "
    "abroad. Members under 18 need the signature of a parent before we send it. "
    "It may not be sent to other countries."
)


@pytest.mark.parametrize(
    "sentence",
    [
        # synonyms
        "A new card costs €12 and normally reaches you within 5 business days.",
        "If a member is under 18, a parent's signature is required before we send it.",
        # active and passive, an imperative and "you can"
        "You can block a lost card in the app under Cards > Block, or by phone on 0800 555 014.",
        "Block a lost card in the app under Cards > Block, or by phone on 0800 555 014.",
        # another order
        "Before we send it, members under 18 need the signature of a parent.",
        # the explanation, or a statement of its own, left out
        "A replacement costs €12 and usually arrives within 5 working days.",
        "A replacement costs €12.",
        # one sentence out of two, two out of one
        "A replacement costs €12. It usually arrives within 5 working days.",
        "A replacement costs 12 euros, and members under 18 need the signature of a parent before "
        "we send it.",
        # a prohibition in other words
        "It must not be sent to other countries.",
    ],
)
def test_a_rewording_is_supported(sentence: str) -> None:
    verdict = judge(sentence, CARD)
    assert verdict == Verdict(True, covers=verdict.covers), verdict.reason


@pytest.mark.parametrize(
    ("sentence", "reason"),
    [
        ("A replacement costs €21.", "€21 has no counterpart"),
        ("A new card costs €12 and reaches you within 12 business days.", ""),
        ("A replacement costs €12 and always arrives within 5 working days.", "always is added"),
        ("A replacement costs €12 and arrives within 5 working days.", "usually is left out"),
        ("A replacement does not cost €12.", "negation"),
        ("It may be sent to other countries.", "negation"),
        ("A stolen passport is blocked in the app under Cards > Block.", "passport has no"),
        ("You can block a lost card by phone on 0800 555 015.", "015 has no counterpart"),
        ("You can block a lost card in the app under Cards > Lock.", ""),
        ("Block a lost card in the app under Cards > Block and order a new PIN.", "PIN"),
        ("Members under 18 need the signature of a parent after we have sent it.", "after is"),
        ("Members over 18 need the signature of a parent before we send it.", "over is added"),
        ("Members need the signature of a parent before we send it.", "under is left out"),
        ("Members under 18 should have the signature of a parent before we send it.", "should"),
        ("You send it before members under 18 need the signature of a parent.", ""),
        ("Does a replacement cost €12?", "a question"),
        ("Yes.", "says too little"),
        ("A replacement.", "says too little"),
    ],
)
def test_a_corruption_is_rejected_and_the_reason_told(sentence: str, reason: str) -> None:
    verdict = judge(sentence, CARD)
    assert not verdict.supported
    assert verdict.covers == ()
    assert reason.lower() in verdict.reason.lower()
    assert verdict.reason


# --- every true rewording of the development pairs, spoilt in every place ------------------------

_NUMBER = re.compile(r"(?<![\w.,:])[€$£]?\d+(?:[.,]\d+)?")
_AUXILIARY = re.compile(r"\b(is|are|can|must|has to|have to)\b(?! not\b)")
_TURNS = {
    "before": "after",
    "after": "before",
    "if": "unless",
    "unless": "if",
    "usually": "always",
    "normally": "always",
    "within": "after",
    "never": "always",
    "only": "",
}


def other_numbers(text: str) -> Iterator[str]:
    for match in _NUMBER.finditer(text):
        number = match.group()
        changed = number[:-1] + str((int(number[-1]) + 3) % 10)
        yield text[: match.start()] + changed + text[match.end() :]


def negations(text: str) -> Iterator[str]:
    for match in _AUXILIARY.finditer(text):
        yield f"{text[: match.end()]} not{text[match.end() :]}"


def turns(text: str) -> Iterator[str]:
    for word, other in _TURNS.items():
        for match in re.finditer(rf"\b{word}\b", text):
            yield f"{text[: match.start()]}{other}{text[match.end() :]}".replace("  ", " ")


def additions(text: str) -> Iterator[str]:
    for added in ("and restart the server", "and send us a photo of your passport"):
        yield f"{text.rstrip('.')} {added}."


SPOILERS = {
    "another number": (other_numbers, 120),
    "a negation": (negations, 180),
    "a turned condition": (turns, 110),
    "an invented step": (additions, 650),
}


@pytest.mark.parametrize("spoiler", SPOILERS)
def test_a_reworded_sentence_is_rejected_once_it_is_spoilt(spoiler: str) -> None:
    spoil, least = SPOILERS[spoiler]
    spoilt = [(pair, text) for pair in KEPT for text in spoil(pair.sentence)]
    assert len(spoilt) >= least
    passed = [text for pair, text in spoilt if judge(text, pair.passage).supported]
    assert len(passed) <= len(spoilt) // 100, passed


# --- what holds for any text ----------------------------------------------------------------------


@settings(deadline=None)
@given(st.text(max_size=80))
def test_arbitrary_text_neither_breaks_the_judge_nor_passes(text: str) -> None:
    assert not judge(text, CARD).supported
    judge(CARD, text)


@settings(deadline=None)
@given(st.sampled_from(PAIRS), st.sampled_from(PAIRS))
def test_nothing_is_supported_by_another_companys_passage(one: JudgePair, two: JudgePair) -> None:
    if one.passage != two.passage:
        assert not judge(one.sentence, two.passage).supported


@pytest.mark.parametrize("text", [" ".join(["word"] * 4000), "if not " * 2000, "> " * 4000])
def test_long_texts_are_judged_all_the_same(text: str) -> None:
    assert not judge(text, CARD).supported


def test_numbers_keep_their_sign() -> None:
    source = "The freezer has to stay below -18 degrees."
    assert judge("The freezer must stay below -18 degrees.", source).supported
    assert not judge("The freezer must stay below 18 degrees.", source).supported


def test_what_the_desk_does_the_customer_does_not() -> None:
    source = "Defects are repaired at our expense. We pay the postage."
    assert not judge("Defects are repaired at your expense.", source).supported
    assert judge("We pay the postage.", source).supported
    assert not judge("You pay the postage.", source).supported


# --- what the responder asks ----------------------------------------------------------------------


def test_a_pronoun_is_understood_from_the_sentence_before() -> None:
    passages = [passage(REFUND), passage(PASSWORD)]
    first = "The password reset link is valid for 60 minutes."
    then = "It works only once."
    assert supporting_passage(first, passages) is passages[1]
    assert supporting_passage(then, passages) is None
    assert supporting_passage(then, passages, before=first) is passages[1]
    assert supporting_passage("It works always.", passages, before=first) is None


def test_a_rewording_tells_what_it_covers() -> None:
    article = Article("1", "Card?", CARD, "Billing")
    parts = sentences(CARD)
    said = (
        "A new card costs €12 and normally arrives within 5 business days, as it is printed abroad."
    )
    assert parts[1] not in unsaid(article, [said])
    assert set(unsaid(article, [said])) == set(parts) - {parts[1]}
    assert parts[1] in unsaid(article, ["A replacement costs €12."]), "half of it is not all"
    assert is_told(said, article, [parts[1]])
    assert is_told(parts[1], article, [said])
    assert not is_told(parts[0], article, [said])


# --- the tables -----------------------------------------------------------------------------------


def test_the_tables_hold_what_they_promise() -> None:
    for line in table("synonyms.txt"):
        part, _, words = line.partition(" ")
        assert part in ("v", "n", "a", "d"), line
        assert len(words.split(", ")) > 1, line
        assert words == words.lower().strip(), line
    for line in table("contrasts.txt"):
        assert line == line.lower().strip(), line
        assert line.count("|") <= 1, line
    assert operator_phrases()["unless"][0][1] == ("if", "not")


def test_no_word_is_the_synonym_of_its_opposite() -> None:
    senses = lexicon().senses
    for pair in lexicon().opposites:
        one, two = pair if len(pair) == 2 else (*pair, *pair)
        shared = senses.get(one, frozenset()) & senses.get(two, frozenset())
        assert not shared, (one, two)
    assert opposed(frozenset({"enable"}), frozenset({"disable"}))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Don't switch the router off!", ["not", "switch off", "router"]),
        ("It's €5, 5 euros or EUR 5", ["€5", "€5", "€5"]),
        ("two times, twice, 2 times", ["2x", "2x", "2x"]),
        ("at 6 p.m. or 6pm", ["6pm", "6pm"]),
        ("no later than five days", ["no later than", "5", "days"]),
    ],
)
def test_what_is_written_in_several_ways_is_read_in_one(text: str, words: list[str]) -> None:
    found = [t.text for t in read(text) if t.kind not in ("filler", "mark")]
    assert found == words


# --- its own report -------------------------------------------------------------------------------


def test_the_report_counts_by_kind(tmp_path: Path) -> None:
    pairs = [
        JudgePair(CARD, "A replacement costs €12.", True, "tail"),
        JudgePair(CARD, "For a substitute, one parts with €12.", True, "synonyms"),
        JudgePair(CARD, "A replacement costs €13.", False, "number"),
        JudgePair(CARD, "A replacement costs €12.", False, "number"),
    ]
    report = judge_report(pairs)
    assert report["n"] == 4
    assert report["kept"] == {
        "share": 0.5,
        "n": 2,
        "by_kind": {"synonyms": {"share": 0.0, "n": 1}, "tail": {"share": 1.0, "n": 1}},
    }
    assert report["rejected"]["by_kind"] == {"number": {"share": 0.5, "n": 2}}
    assert [mistake["kind"] for mistake in report["mistakes"]] == ["synonyms", "number"]
    assert judge_report(pairs[:1])["rejected"] == {"share": None, "n": 0, "by_kind": {}}
    for content in ("", "{}\n", "no json\n"):
        file = tmp_path / "pairs.jsonl"
        file.write_text(content, encoding="utf-8")
        with pytest.raises(InvalidInput):
            read_pairs(file)
