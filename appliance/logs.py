"""Structured logs: JSON lines on stderr, which systemd carries to the journal.

``bind_request(id)`` and ``bind_query(id)`` put the ids of the request and of the message it brought
on every line that follows in the same task; the request's goes along to the engine, so that one id
finds a query's lines in every process. A customer's text is never logged at info level or above;
ids, counts, names and seconds are.
"""

from __future__ import annotations

import logging
import re
import sys
import uuid
from typing import Any, Final

import structlog
from structlog.tracebacks import ExceptionDictTransformer

REQUEST_ID: Final = "X-Request-ID"
"""The header that carries a request's id from the client, through the api, to the engine."""
_SOUND_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}", re.ASCII)

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


def configure_logs(level: str, *, process: str) -> None:
    """Set up logging for this process; libraries' own records go the same way, from warning
    upwards."""

    def name_process(_logger: Any, _method: str, line: dict[str, Any]) -> dict[str, Any]:
        # By a processor, since values bound to a context are not seen in other threads.
        return {**line, "process": process}

    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        name_process,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        # Without the values of local variables: they hold what customers wrote.
        structlog.processors.ExceptionRenderer(ExceptionDictTransformer(show_locals=False)),
    ]
    structlog.configure(
        processors=[*shared, structlog.processors.JSONRenderer()],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processor=structlog.processors.JSONRenderer(),
            # A line with ``logger`` is a library's: its event is a sentence, not a name of ours.
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(LEVELS[level], logging.WARNING))


def get_logger() -> Any:
    """The logger every module uses: ``log.info("event", key=value)``."""
    return structlog.get_logger()


def bind_query(query_id: str) -> None:
    """Tie every log line of the current task to one query."""
    structlog.contextvars.bind_contextvars(query=query_id)


def bind_request(given: str | None) -> str:
    """Tie every log line of the current task to one request; returns its id.

    :param given: the id that a client chose; one that would not fit on a line is replaced.
    """
    sound = given is not None and _SOUND_ID.fullmatch(given)
    request_id = given if given is not None and sound else uuid.uuid4().hex
    structlog.contextvars.bind_contextvars(request=request_id)
    return request_id


def request_headers() -> dict[str, str]:
    """What tells another process of the appliance which request it works for; of a query that came
    without one, the query's id."""
    bound = structlog.contextvars.get_contextvars()
    known = bound.get("request") or bound.get("query")
    return {REQUEST_ID: str(known)} if known else {}
