"""What all tests share. Fixtures that start real servers live in the plugin modules named here."""

from __future__ import annotations

from collections.abc import Iterator

import hypothesis
import pytest
import structlog

# A busy machine makes any example slow: times are no property here.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

pytest_plugins = (
    "tests.engine_process",
    "tests.appliance_process",
    "tests.chaos.fixtures",
    "tests.storage_databases",
    "tests.groq_server",
    "tests.vllm_server",
    "tests.vllm_twin",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--full", action="store_true", help="run the issues' full numbers")
    parser.addoption("--vllm", action="store_true", help="ask a real vLLM as well")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("full") and not config.getoption("--full"):
            item.add_marker(pytest.mark.skip(reason="full numbers: ./install.sh test --full"))
        if item.get_closest_marker("vllm") and not config.getoption("--vllm"):
            item.add_marker(pytest.mark.skip(reason="a real vLLM: ./install.sh test --vllm"))
        if item.get_closest_marker("loopback"):
            item.add_marker(pytest.mark.allow_hosts(["127.0.0.1", "::1"]))


@pytest.fixture(autouse=True)
def logs_as_before() -> Iterator[None]:
    """A command that a test runs in this process sets up its logs; the next is not to notice."""
    before = structlog.get_config()
    yield
    structlog.configure(**before)


@pytest.fixture
def anyio_backend() -> str:
    """One event loop, as in production."""
    return "asyncio"
