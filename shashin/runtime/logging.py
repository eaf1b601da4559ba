"""Structured logs: one JSON object per line, or coloured lines for people.

Lines that are written inside a span have its ids. The query of a URL is in no line: it may be a signature.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import structlog

from shashin.printable import printable
from shashin.redaction import redacted
from shashin.runtime import tracing

_CLIENT_LIBRARIES = ("aiokafka", "faststream", "google", "urllib3", "grpc", "opentelemetry")
_OWN_LOGGERS = ("shashin", "services")
_REPEAT_SECONDS = 10.0
_MAX_REMEMBERED = 1000
_FIELDS_OF_LINES = {"exception", "stack"}


class _Repeats(logging.Filter):
    """Limits each log line of a client library to one per ten seconds: while a broker or store is
    unavailable, they log every attempt, hundreds per second.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._logged_at: dict[tuple[str, str], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if not record.name.startswith(_CLIENT_LIBRARIES):
            return True
        now = self._clock()
        if len(self._logged_at) > _MAX_REMEMBERED:
            self._logged_at.clear()
        key = (record.name, record.getMessage())
        if now - self._logged_at.get(key, -_REPEAT_SECONDS) < _REPEAT_SECONDS:
            return False
        self._logged_at[key] = now
        return True


def _printable_fields(
    _logger: Any, _method: str, event: structlog.types.EventDict
) -> structlog.types.EventDict:
    """Escape what could control a terminal; JSON escapes it anyway."""
    return {name: _printable_value(name, value) for name, value in event.items()}


def _printable_value(name: str, value: object) -> object:
    if not isinstance(value, str):
        return value
    if name in _FIELDS_OF_LINES:
        return "\n".join(map(printable, value.split("\n")))
    return printable(value)


def _with_span(
    _logger: Any, _method: str, event: structlog.types.EventDict
) -> structlog.types.EventDict:
    """Add the ids of the current span, unless the line is about another one."""
    if (span := tracing.current()) is not None and "trace_id" not in event:
        event.update(span.log_fields)
    return event


def _redacted_fields(
    _logger: Any, _method: str, event: structlog.types.EventDict
) -> structlog.types.EventDict:
    """Remove what may be a secret from every text."""
    return {
        name: redacted(value) if isinstance(value, str) else value for name, value in event.items()
    }


def configure_logging(service: str, *, level: str, log_format: str) -> None:
    """Write log records of structlog and the standard library to stderr in the same format."""
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        _with_span,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    rendering: list[structlog.types.Processor] = (
        [_printable_fields, structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
        if log_format == "console"
        else [structlog.processors.JSONRenderer()]
    )
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder()],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                _redacted_fields,
                *rendering,
            ],
        )
    )
    handler.addFilter(_Repeats())
    root = logging.getLogger()
    root.handlers = [handler]
    set_log_level(service, level)
    # Client libraries log every reconnect at warning and every request at info.
    for noisy in ("aiokafka", "faststream", "aiohttp.access"):
        logging.getLogger(noisy).setLevel(max(logging.WARNING, root.level))
    structlog.contextvars.bind_contextvars(service=service)


def set_log_level(service: str, level: str) -> None:
    """Log lines from this severity on, from now on.

    Libraries log nothing below info: at debug, clients of object stores write their requests with all
    headers, credentials included.
    """
    logging.getLogger().setLevel(max(logging.getLevelName(level.upper()), logging.INFO))
    for own in (*_OWN_LOGGERS, service):
        logging.getLogger(own).setLevel(level.upper())


def debug_check(name: str) -> Callable[[], bool]:
    """Return what tells whether a module's debug lines are logged, in a tenth of what a line costs."""
    return partial(logging.getLogger(name).isEnabledFor, logging.DEBUG)


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """Return the logger of a module."""
    logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(name)
    return logger
