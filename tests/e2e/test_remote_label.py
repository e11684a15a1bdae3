"""What the chat page says of an answer that was written on another machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.appliance_process import ApplianceProcess
from tests.e2e.test_chat_page import PASSWORD, REFUND, Visit, browser, new_visit, visit
from tests.groq_server import INTERNAL, KEY, Act, GroqServer
from tests.integration.test_api_contract import DRAFT

__all__ = ["browser", "new_visit", "visit"]  # fixtures

# The first test of a session waits for the engine's first start.
pytestmark = [pytest.mark.loopback, pytest.mark.timeout(900)]

LABEL = "Written with a remote model"


@pytest.fixture(scope="module")
def far() -> Iterator[GroqServer]:
    with GroqServer() as server:
        server.ordinary = Act(DRAFT)
        yield server


@pytest.fixture(scope="module")
def appliance(
    make_module_appliance: Callable[..., ApplianceProcess],
    far: GroqServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> ApplianceProcess:
    """One that asks the remote model, in place of the one that all tests share."""
    key_file: Path = tmp_path_factory.mktemp("remote") / "key"
    key_file.write_text(KEY)
    key_file.chmod(0o600)
    return make_module_appliance(
        environment={
            "APPLIANCE_REMOTE_ENABLED": "true",
            "APPLIANCE_REMOTE_URL": far.url,
            "APPLIANCE_REMOTE_KEY_FILE": str(key_file),
        }
    )


def test_the_label_stands_under_a_remote_answer_and_under_no_other(
    visit: Visit, far: GroqServer
) -> None:
    answer = visit.ask(PASSWORD)
    expect(answer.locator(".meta .remote")).to_have_text(LABEL)
    far.ordinary = INTERNAL
    local = visit.ask(REFUND)
    expect(local.locator(".remote")).to_have_count(0)
    # The history tells the same.
    visit.page.reload()
    expect(visit.answers).to_have_count(2)
    expect(visit.answers.nth(0).locator(".meta .remote")).to_have_text(LABEL)
    expect(visit.answers.nth(1).locator(".remote")).to_have_count(0)
    visit.assert_fits()
