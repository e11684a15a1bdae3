"""Log lines are JSON, carry the query's id, and hold nothing a customer wrote.

Logging is set up once a process, so each test has a process of its own.
"""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from typing import Any

import pytest

SECRET = "hunter2-of-the-customer"


def logged(code: str, *, level: str = "info") -> list[dict[str, Any]]:
    """The lines that a program writes to stderr; stdout stays empty."""
    program = textwrap.dedent(
        """
        from appliance.logs import bind_query, configure_logs, get_logger
        configure_logs({level!r}, process="test")
        log = get_logger()
        """
    ).format(level=level) + textwrap.dedent(code)
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert ran.stdout == ""
    return [json.loads(line) for line in ran.stderr.splitlines()]


def test_a_line_is_one_json_object_with_time_level_and_process() -> None:
    (line,) = logged('log.info("started", port=8080, name="a\\nb", odd=object)')
    assert line["event"] == "started"
    assert (line["level"], line["process"], line["port"], line["name"]) == (
        *("info", "test"),
        *(8080, "a\nb"),
    )
    assert line["timestamp"].endswith("Z")


@pytest.mark.parametrize(
    ("level", "wanted"),
    [
        ("debug", ["debug", "info", "warning", "error"]),
        ("info", ["info", "warning", "error"]),
        ("warning", ["warning", "error"]),
        ("error", ["error"]),
    ],
)
def test_only_what_is_severe_enough_is_logged(level: str, wanted: list[str]) -> None:
    code = 'log.debug("a"); log.info("b"); log.warning("c"); log.error("d")'
    assert [line["level"] for line in logged(code, level=level)] == wanted


def test_a_traceback_shows_the_way_but_no_values() -> None:
    (line,) = logged(
        f"""
        def answer(message):
            local = message + "!"
            raise ValueError("told to fail")
        try:
            answer({SECRET!r} + "1")
        except ValueError:
            log.error("agent_failed", exc_info=True)
        """
    )
    text = json.dumps(line)
    assert "told to fail" in text
    assert '"answer"' in text
    assert "ValueError" in text
    assert SECRET not in text


def test_a_chained_error_is_told_whole_without_values() -> None:
    (line,) = logged(
        f"""
        def inner(message):
            raise KeyError("inside")
        def outer(message):
            try:
                inner(message)
            except KeyError as error:
                raise RuntimeError("outside") from error
        try:
            outer({SECRET!r})
        except RuntimeError:
            log.error("failed", exc_info=True)
        """
    )
    text = json.dumps(line)
    assert "inside" in text
    assert "outside" in text
    assert SECRET not in text


def test_the_query_id_stands_on_every_line_of_its_task_and_no_other() -> None:
    lines = logged(
        """
        import asyncio
        from contextvars import copy_context
        async def one(name):
            bind_query(name)
            log.info("first", of=name)
            await asyncio.sleep(0)
            log.info("second", of=name)
            context = copy_context()
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(None, lambda: context.run(log.info, "thread", of=name))
        async def main():
            log.info("before")
            await asyncio.gather(*(asyncio.create_task(one(n)) for n in ("q1", "q2")))
            log.info("after")
        asyncio.run(main())
        """
    )
    assert [line.get("query") for line in lines if line["event"] in ("before", "after")] == [
        *(None, None)
    ]
    others = [line for line in lines if "of" in line]
    assert len(others) == 6
    assert all(line["query"] == line["of"] for line in others)


def test_the_process_is_named_in_other_threads_too() -> None:
    (line,) = logged(
        """
        import threading
        thread = threading.Thread(target=lambda: log.info("in_thread"))
        thread.start(); thread.join()
        """
    )
    assert line["process"] == "test"


def test_libraries_speak_json_from_warning_upwards_with_the_query_id() -> None:
    lines = logged(
        """
        import logging
        bind_query("q1")
        library = logging.getLogger("some.library")
        library.info("chatter")
        library.warning("disk %s", "full")
        """
    )
    (line,) = lines
    assert (line["event"], line["level"], line["query"]) == ("disk full", "warning", "q1")
    assert (line["process"], line["logger"]) == ("test", "some.library")


def test_a_line_of_ours_is_nobody_elses() -> None:
    """What tells our events from a library's sentences."""
    (line,) = logged('log.warning("disk_full")')
    assert "logger" not in line


def test_a_librarys_traceback_holds_no_values_either() -> None:
    (line,) = logged(
        f"""
        import logging
        def handler(message):
            raise ValueError("told to fail")
        try:
            handler({SECRET!r})
        except ValueError:
            logging.getLogger("some.library").exception("it failed")
        """
    )
    text = json.dumps(line)
    assert "told to fail" in text
    assert SECRET not in text


def test_a_chatty_library_stays_quiet_when_the_desk_debugs() -> None:
    assert logged('import logging; logging.getLogger("x").debug("noise")', level="debug") == []
