"""Structured logs: JSON lines on stderr, which systemd carries to the journal.

``bind_query(id)`` puts the query's id on every line that follows in the same task. A customer's
text is never logged at info level or above; ids, counts, names and seconds are.
"""

from __future__ import annotations

import logging
import sys
from typing import Any

import structlog
from structlog.tracebacks import ExceptionDictTransformer

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
            processor=structlog.processors.JSONRenderer(), foreign_pre_chain=shared
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
