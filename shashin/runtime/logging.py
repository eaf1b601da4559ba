"""Structured logs: one JSON object per line, or coloured lines for people."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from typing import Any

import structlog

from shashin.printable import printable

_CLIENT_LIBRARIES = ("aiokafka", "faststream", "google", "urllib3", "grpc")
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


def configure_logging(service: str, *, level: str, log_format: str) -> None:
    """Write log records of structlog and the standard library to stderr in the same format."""
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
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
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
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
                *rendering,
            ],
        )
    )
    handler.addFilter(_Repeats())
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    # Client libraries log every reconnect at warning and every request at info.
    for noisy in ("aiokafka", "faststream", "aiohttp.access"):
        logging.getLogger(noisy).setLevel(max(logging.WARNING, root.level))
    structlog.contextvars.bind_contextvars(service=service)


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """Return the logger of a module."""
    logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(name)
    return logger
