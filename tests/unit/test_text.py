"""Text taken apart: nothing hidden gets in, nothing visible gets lost."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from appliance.domain.text import clean, facts, menu_steps, sentences, stem, words

INVISIBLE = {
    "soft hyphen": "\u00ad",
    "combining grapheme joiner": "\u034f",
    "Arabic letter mark": "\u061c",
    "Hangul filler": "\u3164",
    "Mongolian vowel separator": "\u180e",
    "zero-width space": "\u200b",
    "zero-width non-joiner": "\u200c",
    "zero-width joiner": "\u200d",
    "left-to-right mark": "\u200e",
    "right-to-left override": "\u202e",
    "word joiner": "\u2060",
    "invisible plus": "\u2064",
    "right-to-left isolate": "\u2067",
    "inhibit symmetric swapping": "\u206a",
    "byte order mark": "\ufeff",
    "interlinear annotation anchor": "\ufff9",
    "tag letter": "\U000e0041",
    "variation selector 17": "\U000e0100",
    "variation selector 256": "\U000e01ef",
}
CONTROL = {
    "NUL": "\x00",
    "bell": "\x07",
    "backspace": "\x08",
    "escape": "\x1b",
    "delete": "\x7f",
    "C1 control": "\x9b",
    "private use": "\ue000",
    "noncharacter": "\uffff",
    "half a surrogate pair": "\ud800",
}


@pytest.mark.parametrize("hidden", INVISIBLE.values(), ids=INVISIBLE.keys())
def test_what_people_cannot_see_is_removed(hidden: str) -> None:
    assert clean(f"ig{hidden}nore") == "ignore"


@pytest.mark.parametrize("control", CONTROL.values(), ids=CONTROL.keys())
def test_control_characters_are_removed(control: str) -> None:
    assert clean(f"ig{control}nore") == "ignore"


@pytest.mark.parametrize(
    ("raw", "wanted"),
    [
        ("  hello \n", "hello"),
        ("a\r\nb", "a\nb"),
        ("a\tb", "a\tb"),
        ("Jose\u0301", "José"),
        ("naïve café €5 日本語 😀", "naïve café €5 日本語 😀"),
        ("\u200b \x00", ""),
        ("", ""),
    ],
)
def test_what_people_see_stays_as_it_is(raw: str, wanted: str) -> None:
    assert clean(raw) == wanted


@pytest.mark.parametrize("end", ["\r", "\r\n", "\n", "\x85", "\u2028", "\x0b"])
def test_a_line_break_of_any_kind_still_parts_two_words(end: str) -> None:
    assert clean(f"one{end}two").split() == ["one", "two"]


@settings(deadline=None)
@given(st.text())
@example("e\u200b\u0301")
@example("a\r\x00\nb")
@example("\x00 a \x00")
@example("\u1100\u200d\u1161")
def test_clean_text_is_clean_already(text: str) -> None:
    assert clean(clean(text)) == clean(text)


@settings(deadline=None)
@given(st.text())
@example("e\u200b\u0301")
def test_clean_text_is_composed_and_holds_nothing_hidden(text: str) -> None:
    cleaned = clean(text)
    assert unicodedata.is_normalized("NFC", cleaned)
    hidden = [
        c
        for c in cleaned
        if c not in "\n\t"
        and (unicodedata.category(c) in ("Cc", "Cf", "Cs", "Co", "Cn") or c in INVISIBLE.values())
    ]
    assert hidden == []
    cleaned.encode()


PROSE = st.lists(
    st.sampled_from(
        [
            *("Open", "the", "app", "e.g.", "i.e.", "No.", "5", "9.5", "$6", "Mr.", "E-401"),
            *(".", "!", "?", '"', "'", ")", "(", "]", "”", "\n", " ", "  ", "a@b.example", "…"),
        ]
    ),
    max_size=24,
).map("".join)


@settings(deadline=None)
@given(st.one_of(st.text(), PROSE))
@example('It says "done." Then it stops.')
@example("(It works.) Then it stops.")
@example("Use it (or not!) Next one.")
def test_sentences_lose_no_visible_character(text: str) -> None:
    def visible(some: str) -> str:
        return "".join(some.split())

    assert visible("".join(sentences(text))) == visible(text)


@settings(deadline=None)
@given(st.one_of(st.text(), PROSE))
def test_a_sentence_is_never_blank_and_has_no_blanks_around(text: str) -> None:
    for sentence in sentences(text):
        assert sentence
        assert sentence == sentence.strip()


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("One. Two! Three? Four", ["One.", "Two!", "Three?", "Four"]),
        ("One line\nand another\n\n\nlast", ["One line", "and another", "last"]),
        ("Write to help@desk.example. It works.", ["Write to help@desk.example.", "It works."]),
        ("It costs $9.50. 3 users are free.", ["It costs $9.50.", "3 users are free."]),
        ("Open Settings.app now", ["Open Settings.app now"]),
        ("Use a browser, e.g. Firefox, to sign in.", ["Use a browser, e.g. Firefox, to sign in."]),
        ("That is, i.e. Chrome works.", ["That is, i.e. Chrome works."]),
        ("Ask Mr. Smith or Dr. Brown.", ["Ask Mr. Smith or Dr. Brown."]),
        ("See No. 5 of the list.", ["See No. 5 of the list."]),
        ("It takes approx. 10 minutes.", ["It takes approx. 10 minutes."]),
        ("", []),
        (" \n ", []),
    ],
)
def test_sentences_end_where_people_end_them(text: str, wanted: list[str]) -> None:
    assert sentences(text) == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("It costs $6.", {"$6"}),
        ("It costs €1,000.50 or £7", {"€1,000.50", "£7"}),
        ("Save 50% or 9.5 %", {"50%", "9.5%"}),
        ("From 20:00 to 08:00", {"20:00", "08:00"}),
        ("Error E-401 and NL-1002, AES-256", {"e-401", "nl-1002", "aes-256"}),
        ("Write to a.b+c@desk.example.", {"a.b+c@desk.example"}),
        ("See https://desk.example/help?a=1.", {"https://desk.example/help?a=1"}),
        ("At www.desk.example, always", {"www.desk.example"}),
        ("It takes 5 minutes, 5 at most.", {"5"}),
        ("At -5 or −7 degrees", {"-5", "−7"}),
        ("It costs 6 € or 7$", {"6€", "7$"}),
        ("Nothing to see here.", set()),
    ],
)
def test_facts_are_the_numbers_codes_and_addresses(text: str, wanted: set[str]) -> None:
    assert facts(text) == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("Choose Settings > Billing", {("settings", "billing")}),
        (
            "under Settings > Billing > Cancel plan today",
            {("settings", "billing"), ("billing", "cancel")},
        ),
        (
            "Settings>Security and Help > Contact us",
            {("settings", "security"), ("help", "contact")},
        ),
        ("System Settings > Privacy & Security > Open Anyway", None),
        ("No menu at all", set()),
    ],
)
def test_menu_steps_are_the_joints_of_a_path(
    text: str, wanted: set[tuple[str, str]] | None
) -> None:
    found = menu_steps(text)
    if wanted is None:
        assert ("settings", "privacy") in found
        assert ("security", "open") in found
    else:
        assert found == wanted


@pytest.mark.parametrize(
    "altered",
    [
        "Settings > Sync > Cancel plan",
        "Settings > Cancel plan",
        "Billing > Settings > Cancel plan",
        "Settings > Billing > Reactivate",
        "Settings > Billing > Cancel > plan",
    ],
)
def test_an_altered_path_has_a_joint_the_true_one_lacks(altered: str) -> None:
    assert not menu_steps(altered) <= menu_steps("Settings > Billing > Cancel plan")


def test_words_are_lower_case_and_keep_their_apostrophes() -> None:
    assert words("Don’t stop, it's 5 O'Clock_now") == [
        "don't",
        "stop",
        "it's",
        "5",
        "o'clock",
        "now",
    ]


@pytest.mark.parametrize(
    ("one", "other"),
    [("charges", "charged"), ("refunds", "refund"), ("syncing", "sync"), ("quickly", "quick")],
)
def test_the_commonest_endings_do_not_part_words(one: str, other: str) -> None:
    assert stem(one) == stem(other)


@settings(deadline=None)
@given(st.from_regex(r"[a-z]{1,3}", fullmatch=True))
def test_short_words_have_no_ending(word: str) -> None:
    assert stem(word) == word
