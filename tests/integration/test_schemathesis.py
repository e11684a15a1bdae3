"""Everything the OpenAPI document promises, tried by schemathesis against a real server.

All checks of all its phases, but for two: what a schema cannot say is refused all the same (a
message of invisible characters, a key that belongs to another request), and a number in a field for
a truth value is taken for one.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from appliance.cli.bench_load import scripted_desk

pytestmark = [pytest.mark.loopback, pytest.mark.anyio]

NOT_TOLD_BY_SCHEMAS = "positive_data_acceptance,negative_data_rejection"


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[dict[str, Any]]:
    async with scripted_desk(tmp_path / "desk", hashed=True) as desk:
        yield desk


async def known_ids(running: dict[str, Any]) -> dict[str, str]:
    """Ids that are there: with made-up ones alone, half of the routes would only say 404."""
    headers = {"Authorization": f"Bearer {running['key']}"}
    async with httpx.AsyncClient(base_url=running["url"], headers=headers, timeout=60) as client:
        body = {"user_id": "ada", "message": "How do I reset my password?"}
        answer = (await client.post("/api/v1/query", json=body)).raise_for_status().json()
    return {
        "conversation_id": answer["conversation_id"],
        "message_id": answer["message_id"],
        "article_id": "21",
    }


@pytest.mark.parametrize(
    ("examples", "least"),
    [
        pytest.param(25, 1_000, id="small"),
        pytest.param(400, 10_000, id="full", marks=[pytest.mark.full, pytest.mark.timeout(1_800)]),
    ],
)
async def test_every_answer_is_as_described(
    running: dict[str, Any], tmp_path: Path, examples: int, least: int
) -> None:
    known = await known_ids(running)
    ids = "".join(f'"path.{name}" = "{value}"\n' for name, value in known.items())
    (tmp_path / "schemathesis.toml").write_text(f"[parameters]\n{ids}")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "run"),
            f"{running['url']}/docs/openapi.json",
            *("--header", f"Authorization: Bearer {running['key']}"),
            *("--phases", "examples,coverage,fuzzing,stateful"),
            *("--checks", "all", "--exclude-checks", NOT_TOLD_BY_SCHEMAS),
            *("--max-examples", str(examples), "--seed", "20261124"),
            *("--suppress-health-check", "all", "--generation-database", "none"),
            *("--continue-on-failure", "--no-color"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=1_700,
    )
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr
    told = re.search(r"(\d+) generated, (\d+) passed", done.stdout)
    assert told is not None, done.stdout
    assert int(told[1]) >= least
    assert told[1] == told[2]
    operations = re.search(r"Selected: (\d+)/(\d+)\s+Tested: (\d+)", done.stdout)
    assert operations is not None
    assert len(set(operations.groups())) == 1
