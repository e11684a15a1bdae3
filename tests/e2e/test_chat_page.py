"""The chat page in a real browser against a running appliance.

Screenshots lie in each test's temporary folder: ``pytest --basetemp=DIR`` says where.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Locator,
    Page,
    Route,
    expect,
    sync_playwright,
)

from tests.appliance_process import ApplianceProcess, until

# The first test of a session waits for the engine's first start.
pytestmark = [pytest.mark.loopback, pytest.mark.timeout(900)]

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    # Whatever the browser itself wants to look up does not exist.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]
PASSWORD = "How do I reset my password?"
REFUND = "What is your refund policy?"
SLOW = 60_000.0
"""Milliseconds a page may take on a busy machine."""

expect.set_options(timeout=SLOW)

WATCH = """
window.policyViolations = [];
document.addEventListener("securitypolicyviolation", (event) => {
  window.policyViolations.push(`${event.violatedDirective}: ${event.blockedURI}`);
});
"""


@dataclass
class Visit:
    """One visitor with a browser of their own, and everything the page did."""

    desk: ApplianceProcess
    context: BrowserContext
    page: Page
    shots: Path
    requests: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def open(self, path: str = "/") -> None:
        self.page.goto(self.desk.url + path)

    @property
    def box(self) -> Locator:
        return self.page.locator("#message")

    @property
    def answers(self) -> Locator:
        """Finished messages of the assistant."""
        return self.page.locator(".message.assistant[data-outcome]")

    @property
    def questions(self) -> Locator:
        return self.page.locator(".message.customer")

    def ask(self, text: str) -> Locator:
        """Type, send, and wait for the finished answer."""
        before = self.answers.count()
        self.box.fill(text)
        self.box.press("Enter")
        expect(self.answers).to_have_count(before + 1)
        expect(self.page.locator("#desk-status")).not_to_have_text("Answering…")
        return self.answers.nth(before)

    @property
    def conversation(self) -> str:
        """The id of the conversation that is shown."""
        found = self.page.evaluate("JSON.parse(localStorage['smartsupport.conversation']).id")
        return str(found)

    def focused(self) -> str:
        """What has the focus: an id, or classes."""
        found = self.page.evaluate("document.activeElement.id || document.activeElement.className")
        return str(found)

    def tab_to(self, name: str, *, key: str = "Tab") -> None:
        """Press Tab until the focus is there."""
        for _ in range(60):
            if name in self.focused().split():
                return
            self.page.keyboard.press(key)
        raise AssertionError(f"{key} does not lead to {name}")

    def shoot(self, name: str) -> None:
        self.page.screenshot(path=self.shots / f"{name}.png")

    def assert_fits(self) -> None:
        """Nothing is wider than the window."""
        wide = self.page.evaluate(
            """() => [document.documentElement, document.body, document.getElementById("scroller")]
                .filter((node) => node && node.scrollWidth > node.clientWidth)
                .map((node) => `${node.tagName}#${node.id} ${node.scrollWidth}`)"""
        )
        assert wide == []
        outside = self.page.evaluate(
            """() => [...document.querySelectorAll("header *, main *, footer *, dialog[open] *")]
                .filter((node) => !node.closest(".visually-hidden, svg, [hidden]"))
                .map((node) => [node, node.getBoundingClientRect()])
                .filter(([, box]) => box.width && box.right > innerWidth + 1)
                .map(([node]) => `${node.tagName}.${node.className}`)"""
        )
        assert outside == []


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if not CHROMIUM.exists():
        give_up = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        give_up("Chromium is not installed")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield started
        started.close()


Open = Callable[..., Visit]


@pytest.fixture
def new_visit(appliance: ApplianceProcess, browser: Browser, tmp_path: Path) -> Iterator[Open]:
    """Visitors, each in a fresh browser context. Afterwards: nobody reached for another host, and
    no page complained of anything it was not told to expect."""
    visits: list[Visit] = []

    def new(**options: Any) -> Visit:
        context = browser.new_context(**({"viewport": {"width": 1100, "height": 800}} | options))
        context.set_default_timeout(SLOW)
        context.add_init_script(WATCH)
        visit = Visit(appliance, context, context.new_page(), tmp_path)
        context.on("request", lambda request: visit.requests.append(request.url))
        context.on("console", lambda message: _heard(visit, message))
        context.on("weberror", lambda error: visit.errors.append(str(error.error)))
        visits.append(visit)
        return visit

    yield new
    for visit in visits:
        violations = [v for page in visit.context.pages for v in page.evaluate("policyViolations")]
        visit.context.close()
        assert violations == []
        assert visit.errors == []
        assert visit.requests
        own = (f"{appliance.url}/", "data:", "blob:")
        assert [url for url in visit.requests if not url.startswith(own)] == []


def _heard(visit: Visit, message: ConsoleMessage) -> None:
    if message.type in ("error", "warning"):
        visit.errors.append(message.text)


@pytest.fixture
def visit(new_visit: Open) -> Visit:
    """A visitor who has opened the page."""
    visitor = new_visit()
    visitor.open()
    expect(visitor.page.locator("#desk-status")).to_have_text("Online")
    return visitor


# --- asking ---------------------------------------------------------------------------------------


def test_a_question_is_answered_word_by_word(visit: Visit) -> None:
    page = visit.page
    expect(page).to_have_title("Northleaf Support")
    expect(page.locator("#desk-name")).to_have_text("Northleaf Support")
    expect(page.locator("#welcome")).to_be_visible()
    visit.shoot("welcome")
    page.evaluate(
        """() => {
            window.grown = new Set();
            const look = () => {
                const text = document.querySelector(".message.assistant .text");
                if (text?.textContent) grown.add(text.textContent.length);
            };
            new MutationObserver(look).observe(document.getElementById("content"),
                { subtree: true, childList: true, characterData: true });
        }"""
    )
    answer = visit.ask(PASSWORD)
    expect(visit.questions.locator(".text")).to_have_text(PASSWORD)
    expect(answer.locator(".text").first).to_contain_text("Forgot password link")
    expect(answer.locator(".chip.category")).to_contain_text("Account")
    expect(answer.locator(".chip.mood")).to_contain_text("Neutral")
    expect(answer.locator(".citation")).to_have_text([f"Source: {PASSWORD}"])
    expect(page.locator("#welcome")).to_be_hidden()
    expect(visit.box).to_have_value("")
    assert page.evaluate("grown.size") > 1
    stored = visit.desk.messages(visit.conversation)
    assert [item["content"] for item in stored] == [
        PASSWORD,
        answer.locator(".text").first.inner_text(),
    ]
    visit.shoot("answer")


def test_a_conversation_goes_on_and_another_begins(visit: Visit) -> None:
    page = visit.page
    visit.ask(PASSWORD)
    first = visit.conversation
    visit.ask("Thank you!")
    assert visit.conversation == first
    assert len(visit.desk.messages(first)) == 4
    page.locator("#new-conversation").click()
    expect(visit.questions).to_have_count(0)
    visit.ask(REFUND)
    assert visit.conversation != first
    page.locator("#conversations-button").click()
    titles = page.locator("#conversations-menu .menu-title")
    expect(titles).to_have_text([REFUND, PASSWORD])
    visit.shoot("menu")
    page.locator(".menu-item").nth(1).click()
    expect(visit.questions).to_have_count(2)
    assert visit.conversation == first


def test_what_customers_and_articles_say_is_text(visit: Visit) -> None:
    attack = "<img src=x onerror=alert(1)><script>alert(2)</script> **reset** my password"
    visit.page.on("dialog", lambda dialog: visit.errors.append(dialog.message))
    visit.ask(attack)
    expect(visit.questions.locator(".text")).to_have_text(attack)
    assert visit.page.locator("#transcript img, #transcript script").count() == 0
    visit.page.reload()
    expect(visit.questions.locator(".text")).to_have_text(attack)


def test_nothing_is_sent_by_accident(visit: Visit) -> None:
    send = visit.page.locator("#send")
    expect(send).to_be_disabled()
    visit.box.fill("   ")
    visit.box.press("Enter")
    expect(send).to_be_disabled()
    visit.box.fill("one")
    visit.box.press("Shift+Enter")
    visit.box.press_sequentially("two")
    expect(visit.box).to_have_value("one\ntwo")
    visit.box.fill("x" * 8_001)
    expect(visit.page.locator("#counter")).to_have_text("1 characters too many")
    visit.box.press("Enter")
    expect(visit.questions).to_have_count(0)
    expect(send).to_be_disabled()
    assert not [url for url in visit.requests if "/query" in url]


# --- sources, thumbs, history ---------------------------------------------------------------------


def test_a_source_opens_and_gives_the_focus_back(visit: Visit) -> None:
    page = visit.page
    citation = visit.ask(PASSWORD).locator(".citation")
    dialog = page.locator("#article-dialog")
    citation.click()
    expect(dialog).to_be_visible()
    expect(page.locator("#article-title")).to_have_text(PASSWORD)
    expect(page.locator("#article-category")).to_have_text("Account")
    expect(page.locator("#article-body")).to_contain_text("at least 12 characters")
    assert page.evaluate("document.activeElement.closest('dialog')?.id") == "article-dialog"
    visit.shoot("article")
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(citation).to_be_focused()
    for close in dialog.locator("[data-close]").all():
        citation.click()
        expect(dialog).to_be_visible()
        close.click()
        expect(dialog).to_be_hidden()
        expect(citation).to_be_focused()


def test_a_thumb_is_pressed_and_stored(visit: Visit) -> None:
    answer = visit.ask(PASSWORD)
    up, down = answer.locator(".thumb.up"), answer.locator(".thumb.down")
    expect(up).to_have_attribute("aria-pressed", "false")
    up.click()
    expect(up).to_have_attribute("aria-pressed", "true")
    expect(answer.locator(".note")).to_have_text("Thank you for telling us.")
    assert visit.desk.messages(visit.conversation)[1]["rating"] == "up"
    down.click()
    expect(down).to_have_attribute("aria-pressed", "true")
    expect(up).to_have_attribute("aria-pressed", "false")
    field = answer.locator(".comment textarea")
    expect(field).to_be_focused()
    field.fill("Where is the link?")
    answer.get_by_role("button", name="Send comment").click()
    expect(answer.locator(".note")).to_contain_text("Your comment helps us")
    message = visit.desk.messages(visit.conversation)[1]
    assert message["rating"] == "down"
    statement = "SELECT rating, comment FROM feedback WHERE message_id = ?"
    assert visit.desk.rows(statement, message["id"]) == [("down", "Where is the link?")]
    visit.page.reload()
    expect(visit.answers.locator(".thumb.down")).to_have_attribute("aria-pressed", "true")


def test_the_history_survives_a_reload(visit: Visit) -> None:
    page = visit.page
    visit.ask(PASSWORD)
    visit.ask(REFUND)
    visit.box.fill("a draft")
    shown = page.locator(".message .text").all_inner_texts()
    page.reload()
    expect(visit.answers).to_have_count(2)
    assert page.locator(".message .text").all_inner_texts() == shown
    expect(visit.box).to_have_value("a draft")
    expect(visit.answers.nth(1).locator(".citation")).to_have_count(1)
    visit.answers.first.locator(".citation").click()
    expect(page.locator("#article-body")).to_contain_text("at least 12 characters")
    page.keyboard.press("Escape")
    visit.box.fill("")
    visit.ask("Thank you!")
    assert len(visit.desk.messages(visit.conversation)) == 6


def test_another_visitor_sees_nothing_of_it(visit: Visit, new_visit: Open) -> None:
    visit.ask(PASSWORD)
    stranger = new_visit()
    stranger.open()
    expect(stranger.page.locator("#desk-status")).to_have_text("Online")
    stranger.page.locator("#conversations-button").click()
    expect(stranger.page.locator(".menu-note")).to_have_text("No earlier conversations yet.")
    status = stranger.page.evaluate(
        "id => fetch(`/api/v1/conversations/${id}/messages`).then((answer) => answer.status)",
        visit.conversation,
    )
    assert status == 404
    # The browser mentions the answer that was asked for here.
    assert [e for e in stranger.errors if "404" not in e] == []
    stranger.errors.clear()


# --- people ---------------------------------------------------------------------------------------


def test_a_person_is_asked_for(visit: Visit) -> None:
    page = visit.page
    visit.ask(PASSWORD)
    page.locator("#talk-to-person").click()
    dialog = page.locator("#person-dialog")
    expect(dialog).to_be_visible()
    expect(page.locator("#person-note")).to_be_focused()
    visit.shoot("person")
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(page.locator("#talk-to-person")).to_be_focused()
    page.locator("#talk-to-person").click()
    page.locator("#person-note").fill("The link never arrives")
    page.locator("#person-submit").click()
    expect(dialog).to_be_hidden()
    handoff = page.locator(".message.handoff")
    expect(handoff.locator(".text")).to_contain_text(re.compile(r"CASE-[A-Z2-7]{10}"))
    expect(handoff.locator(".speaker")).to_contain_text("A person will take over")
    expect(visit.questions).to_have_count(2)
    expect(page.locator("#banner")).to_be_visible()
    expect(page.locator("#desk-status")).to_have_text("With our team")
    visit.shoot("escalated")
    with visit.desk.client("agent") as client:
        stored = client.get(f"/conversations/{visit.conversation}").json()
    assert stored["status"] == "escalated"
    assert stored["case_reference"] in handoff.locator(".text").inner_text()
    page.reload()
    expect(page.locator(".message.handoff")).to_have_count(1)
    expect(page.locator("#desk-status")).to_have_text("With our team")
    page.locator("#talk-to-person").click()
    expect(page.locator("#person-submit")).to_be_hidden()


def test_a_person_is_asked_for_at_once(visit: Visit) -> None:
    page = visit.page
    page.locator("#talk-to-person").click()
    page.locator("#person-submit").click()
    expect(page.locator("#person-error")).to_contain_text("a few words")
    page.locator("#person-note").fill("I lost my telephone")
    page.locator("#person-submit").click()
    expect(page.locator(".message.handoff .text")).to_contain_text("CASE-")
    expect(page.locator("#desk-status")).to_have_text("With our team")


def test_anger_is_handed_over_with_its_case(visit: Visit) -> None:
    answer = visit.ask("THIS IS UNACCEPTABLE! I DEMAND A REFUND NOW!")
    expect(answer).to_have_class(re.compile(r"\bhandoff\b"))
    expect(answer.locator(".text").first).to_contain_text(re.compile(r"CASE-[A-Z2-7]{10}"))
    expect(answer.locator(".chip.mood")).to_contain_text("Angry")
    expect(visit.page.locator("#banner")).to_be_visible()


# --- keyboard, screens, colours -------------------------------------------------------------------


def test_everything_works_with_the_keyboard(visit: Visit) -> None:
    page = visit.page
    expect(visit.box).to_be_focused()
    page.keyboard.type(PASSWORD)
    page.keyboard.press("Enter")
    expect(visit.answers).to_have_count(1)
    expect(visit.box).to_be_focused()

    visit.tab_to("citation", key="Shift+Tab")
    page.keyboard.press("Enter")
    expect(page.locator("#article-dialog")).to_be_visible()
    for _ in range(8):
        page.keyboard.press("Tab")
        inside = page.evaluate(
            "!document.hasFocus() || document.activeElement === document.body"
            " || !!document.activeElement.closest('#article-dialog')"
        )
        assert inside
    page.keyboard.press("Escape")
    expect(page.locator(".citation")).to_be_focused()

    visit.tab_to("up")
    page.keyboard.press("Space")
    expect(page.locator(".thumb.up")).to_have_attribute("aria-pressed", "true")

    visit.tab_to("conversations-button", key="Shift+Tab")
    page.keyboard.press("Enter")
    expect(page.locator(".menu-item")).to_have_count(1)
    page.keyboard.press("Escape")
    expect(page.locator("#conversations-menu")).to_be_hidden()
    expect(page.locator("#conversations-button")).to_be_focused()

    visit.tab_to("talk-to-person")
    page.keyboard.press("Enter")
    expect(page.locator("#person-note")).to_be_focused()
    page.keyboard.type("By keyboard")
    visit.tab_to("person-submit")
    page.keyboard.press("Enter")
    expect(page.locator(".message.handoff .text")).to_contain_text("CASE-")


def test_the_focus_can_be_seen(visit: Visit) -> None:
    visit.box.fill("x")
    for name in ("send", "talk-to-person", "new-conversation", "conversations-button"):
        visit.page.locator("body").click(position={"x": 2, "y": 2})
        visit.tab_to(name)
        seen = visit.page.evaluate(
            """() => { const style = getComputedStyle(document.activeElement);
                return style.outlineStyle !== "none" && style.outlineWidth !== "0px"
                    || style.boxShadow !== "none"; }"""
        )
        assert seen, name


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_telephone(new_visit: Open, scheme: str) -> None:
    visit = new_visit(
        viewport={"width": 360, "height": 740},
        device_scale_factor=2,
        is_mobile=True,
        has_touch=True,
        color_scheme=scheme,
    )
    visit.open()
    expect(visit.page.locator("#desk-status")).to_have_text("Online")
    visit.assert_fits()
    visit.shoot(f"telephone-{scheme}-welcome")
    visit.ask(PASSWORD)
    visit.assert_fits()
    visit.ask("https://example.com/" + "x" * 300 + " " + "W" * 200)
    visit.assert_fits()
    visit.shoot(f"telephone-{scheme}-answer")
    visit.answers.first.locator(".citation").tap()
    expect(visit.page.locator("#article-dialog")).to_be_visible()
    visit.assert_fits()
    visit.shoot(f"telephone-{scheme}-article")
    visit.page.locator("#article-dialog [data-close]").last.tap()
    visit.page.locator("#talk-to-person").tap()
    expect(visit.page.locator("#person-dialog")).to_be_visible()
    visit.assert_fits()
    small = visit.page.evaluate(
        """() => [...document.querySelectorAll("button")]
            .map((node) => [node.id || node.className, node.getBoundingClientRect()])
            .filter(([, box]) => box.width && Math.min(box.width, box.height) < 24)
            .map(([name]) => name)"""
    )
    assert small == []  # the least size of WCAG 2.2, 2.5.8


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_light_and_dark(new_visit: Open, scheme: str) -> None:
    visit = new_visit(color_scheme=scheme)
    visit.open()
    answer = visit.ask(PASSWORD)
    luminance = visit.page.evaluate(LUMINANCE, ["body", "background-color"])
    assert luminance > 0.7 if scheme == "light" else luminance < 0.1
    for text in (answer.locator(".text").first, visit.questions.locator(".text")):
        assert text.evaluate(CONTRAST) >= 4.5  # WCAG 2.2, 1.4.3
    visit.shoot(scheme)


_COLOURS = """
    const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
    const colour = (css) => {
        canvas.clearRect(0, 0, 1, 1);
        canvas.fillStyle = css;
        canvas.fillRect(0, 0, 1, 1);
        return [...canvas.getImageData(0, 0, 1, 1).data];
    };
    const linear = (part) => {
        const c = part / 255;
        return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
    };
    const light = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
"""
LUMINANCE = (
    "([selector, name]) => {"
    + _COLOURS
    + "return light(colour(getComputedStyle(document.querySelector(selector))"
    ".getPropertyValue(name))); }"
)
CONTRAST = (
    "(node) => {"
    + _COLOURS
    + """
    const front = light(colour(getComputedStyle(node).color));
    let behind = node;
    while (behind && colour(getComputedStyle(behind).backgroundColor)[3] < 255)
        behind = behind.parentElement;
    const back = light(colour(getComputedStyle(behind ?? document.body).backgroundColor));
    return (Math.max(front, back) + 0.05) / (Math.min(front, back) + 0.05);
}"""
)


def test_a_large_font_and_little_room(new_visit: Open) -> None:
    """Zoomed to 400 %, a window of 1280 pixels is one of 320 (WCAG 2.2, 1.4.10)."""
    visit = new_visit(viewport={"width": 320, "height": 256}, reduced_motion="reduce")
    visit.open()
    visit.ask(PASSWORD)
    visit.assert_fits()
    expect(visit.box).to_be_in_viewport()
    visit.shoot("zoomed")


# --- what goes wrong ------------------------------------------------------------------------------


def _breaking(visit: Visit, times: int, act: Callable[[Route], None]) -> None:
    """Let the next questions meet ``act`` instead of the server."""
    visit.page.route("**/api/v1/query/stream", act, times=times)


def test_a_message_that_was_not_sent_is_kept(visit: Visit) -> None:
    _breaking(visit, 1, lambda route: route.abort())
    visit.box.fill(PASSWORD)
    visit.box.press("Enter")
    notice = visit.page.locator(".notice")
    expect(notice).to_contain_text("We could not reach the support desk")
    expect(visit.page.locator("#desk-status")).to_contain_text("Not reachable")
    visit.shoot("unreachable")
    notice.get_by_role("button", name="Try again").click()
    expect(visit.answers).to_have_count(1)
    expect(notice).to_have_count(0)
    expect(visit.questions).to_have_count(1)
    assert len(visit.desk.messages(visit.conversation)) == 2
    assert all("ERR_FAILED" in error for error in visit.errors)
    visit.errors.clear()


def test_a_message_whose_answer_was_lost_is_asked_once(visit: Visit) -> None:
    """The server has it, the page cannot know: another try must not be another question."""

    def lose_the_answer(route: Route) -> None:
        assert route.fetch().ok
        route.abort()

    _breaking(visit, 1, lose_the_answer)
    visit.box.fill(PASSWORD)
    visit.box.press("Enter")
    visit.page.locator(".notice").get_by_role("button", name="Try again").click()
    expect(visit.answers).to_have_count(1)
    expect(visit.answers.locator(".text").first).to_contain_text("Forgot password")
    assert len(visit.desk.messages(visit.conversation)) == 2
    with visit.desk.client("admin") as client:
        listed = client.get("/conversations", params={"limit": 2}).json()["items"]
    assert [item["id"] for item in listed].count(visit.conversation) == 1
    assert all("ERR_FAILED" in error for error in visit.errors)
    visit.errors.clear()


def test_too_many_messages_have_to_wait(visit: Visit) -> None:
    _breaking(
        visit,
        1,
        lambda route: route.fulfill(
            status=429,
            headers={"Retry-After": "2", "Content-Type": "application/problem+json"},
            body='{"status": 429, "code": "rate_limited", "title": "t", "detail": "d"}',
        ),
    )
    visit.box.fill(PASSWORD)
    visit.box.press("Enter")
    retry = visit.page.locator(".notice .retry")
    expect(visit.page.locator(".notice")).to_contain_text("a lot of messages in a short time")
    expect(retry).to_be_disabled()
    expect(retry).to_be_enabled()
    retry.click()
    expect(visit.answers).to_have_count(1)
    assert all("429" in error for error in visit.errors)
    visit.errors.clear()


def test_a_reload_in_the_middle_picks_the_answer_up(visit: Visit) -> None:
    visit.box.fill(PASSWORD)
    visit.box.press("Enter")
    until(
        lambda: visit.page.evaluate(
            "JSON.parse(localStorage['smartsupport.conversation'] ?? 'null')?.id"
        ),
        "its id",
    )
    visit.page.reload()
    expect(visit.answers).to_have_count(1)
    expect(visit.answers.locator(".text").first).to_contain_text("Forgot password")
    assert len(visit.desk.messages(visit.conversation)) == 2


def test_signs_of_life_are_no_words(visit: Visit) -> None:
    """A slow model lets the server send comments; their form is that of the server."""
    answer = visit.ask(PASSWORD)
    said = answer.locator(".text").first.inner_text()
    recorded: list[bytes] = []

    def slowly(route: Route) -> None:
        body = route.fetch().body()
        recorded.append(body)
        first, _, rest = body.partition(b"\r\n\r\n")
        ping = b": ping\r\n\r\n"
        route.fulfill(
            status=200,
            headers={"Content-Type": "text/event-stream"},
            body=ping + first + b"\r\n\r\n" + ping + ping + rest + ping,
        )

    _breaking(visit, 1, slowly)
    again = visit.ask(PASSWORD)
    assert recorded
    expect(again.locator(".text").first).to_have_text(said)


# --- the description of the interface -------------------------------------------------------------


def test_the_api_pages_come_from_this_server(new_visit: Open) -> None:
    visit = new_visit()
    visit.open("/docs")
    expect(visit.page.locator(".swagger-ui .title").first).to_contain_text("SmartSupport Appliance")
    expect(visit.page.locator(".opblock").first).to_be_visible()
    visit.page.locator(".opblock-summary").first.click()
    expect(visit.page.locator(".opblock-body").first).to_be_visible()
    visit.shoot("docs")
