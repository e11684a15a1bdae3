"""docs/api.md holds what the application does: its tour runs, its table is the one in force."""

from __future__ import annotations

import json
import os
import re
import subprocess

import pytest

from appliance.api.roles import ROUTES
from appliance.settings import HOME
from tests.appliance_process import ApplianceProcess

DOCUMENT = (HOME / "docs" / "api.md").read_text(encoding="utf-8")
API = "/api/v1"


def test_the_table_says_who_may_call_what() -> None:
    told = dict(re.findall(r"^\| `([A-Z]+ /[^`]*)` \| ([a-z, ]+) \|$", DOCUMENT, re.MULTILINE))
    there = {
        route.replace(API, ""): set(callers) if callers is not None else {"anybody"}
        for route, callers in ROUTES.items()
        if API in route
    }
    assert {route: set(who.split(", ")) for route, who in told.items()} == there


@pytest.mark.loopback
@pytest.mark.timeout(900)
def test_the_tour_runs_as_it_stands(appliance: ApplianceProcess) -> None:
    tour = DOCUMENT.split("## A tour")[1].split("\n## ")[0]
    script = "\n".join(line[4:] for line in tour.splitlines() if line.startswith("    "))
    assert script.count("call ") > 8
    key = appliance.keys["admin"]
    ran = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        env={"PATH": os.environ["PATH"], "DESK": appliance.url, "KEY": key},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ran.returncode == 0, ran.stdout[-2000:] + ran.stderr
    assert "event: answer" in ran.stdout
    with appliance.client("admin") as desk:
        assert desk.get("/users/marta").status_code == 404
        assert not json.loads(desk.get("/conversations", params={"user_id": "marta"}).text)["items"]
