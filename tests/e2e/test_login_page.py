"""The sign-in page in a real browser, against the real server over TLS."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.appliance_process import until
from tests.e2e.test_chat_page import SLOW, WATCH, browser
from tests.integration.test_tls import Make, Running, make, started

__all__ = ["browser", "make"]

pytestmark = [pytest.mark.loopback, pytest.mark.timeout(600)]

NEW = "a fresh battery of words"


@dataclass
class Visit:
    """A browser at the sign-in page of a running API."""

    running: Running
    page: Page
    password: str

    def sign_in(self, password: str) -> None:
        self.page.get_by_label("User name").fill("ada")
        self.page.locator("#password").fill(password)
        self.page.locator("#password").press("Enter")


@pytest.fixture
def visit(browser: Browser, make: Make, tmp_path: Path) -> Iterator[Visit]:
    pair = make()
    files = {
        "APPLIANCE_TLS_CERT_FILE": str(pair.certificate),
        "APPLIANCE_TLS_KEY_FILE": str(pair.key),
    }
    with started(tmp_path, **files) as running:
        made = running.cli("accounts", "create", "ada", "--role", "admin", "--generate")
        until(running.listens, "the server listens")
        context = browser.new_context(
            base_url=f"https://127.0.0.1:{running.port}", ignore_https_errors=True
        )
        context.set_default_timeout(SLOW)
        context.add_init_script(WATCH)
        errors: list[str] = []
        context.on("weberror", lambda error: errors.append(str(error.error)))
        page = context.new_page()
        yield Visit(running, page, made["password"])
        violations = page.evaluate("policyViolations")
        context.close()
        assert violations == []
        assert errors == []


def test_in_out_and_another_password(visit: Visit, tmp_path: Path) -> None:
    page = visit.page
    page.goto("/login")
    expect(page.locator("#sign-in")).to_be_visible()
    page.screenshot(path=tmp_path / "sign-in.png")
    visit.sign_in("not the password")
    expect(page.locator("#sign-in-error")).to_contain_text("wrong, or the account is locked")
    visit.sign_in(visit.password)
    expect(page.locator("#who")).to_have_text("ada (ada)")
    expect(page.locator("#role")).to_have_text("Administrator")
    assert "appliance_session" not in page.evaluate("document.cookie"), "no script reads it"
    page.screenshot(path=tmp_path / "signed-in.png")

    fields = page.locator("#password-form input")
    for given, said in (
        ((visit.password, NEW, NEW + "x"), "differ"),
        ((visit.password, "short", "short"), "12 to 128 characters"),
        ((visit.password, NEW, NEW), "is changed"),
    ):
        for field, text in zip(fields.all(), given, strict=True):
            field.fill(text)
        page.get_by_role("button", name="Change it").click()
        expect(page.locator("#password-line")).to_contain_text(said)
    page.reload()
    expect(page.locator("#who")).to_have_text("ada (ada)")
    page.get_by_role("button", name="Sign out").click()
    expect(page.locator("#sign-in")).to_be_visible()
    page.reload()
    expect(page.locator("#sign-in")).to_be_visible()

    # The chat page beside it speaks for its visitor.
    page.goto("/login?next=%2Fdocs")
    visit.sign_in(NEW)
    page.wait_for_url("**/docs")
    page.goto("/")
    expect(page.locator("#desk-name")).to_have_text("Northleaf Support")
    for elsewhere in ("//example.com/", "/\\example.com/", "https://example.com/", "javascript:1"):
        page.goto("/login")
        page.get_by_role("button", name="Sign out").click()
        page.goto("/login?next=" + page.evaluate("encodeURIComponent", elsewhere))
        visit.sign_in(NEW)
        expect(page.locator("#who")).to_be_visible()


def test_a_key_signs_in(visit: Visit) -> None:
    key = visit.running.cli("keys", "create", "--role", "agent", "--name", "till")["key"]
    page = visit.page
    page.goto("/login")
    page.get_by_text("Sign in with a key", exact=True).click()
    page.get_by_label("Key of an agent or administrator").fill(key)
    page.get_by_role("button", name="Sign in with the key").click()
    expect(page.locator("#who")).to_have_text("Key till")
    expect(page.locator("#role")).to_have_text("Agent")
    expect(page.locator("#password-form")).to_be_hidden()
