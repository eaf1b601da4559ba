"""Logging as services configure it, for as long as a test looks at it."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from shashin.runtime.logging import configure_logging


@contextmanager
def logged_as_json(service: str, *, level: str = "info") -> Iterator[io.StringIO]:
    """Collect what is logged; afterwards logging is as it was, for the tests that follow."""
    root = logging.getLogger()
    handlers, before = root.handlers, root.level
    configure_logging(service, level=level, log_format="json")
    # A logger that was cached would keep this configuration after it has been reset.
    structlog.configure(cache_logger_on_first_use=False)
    written = io.StringIO()
    root.handlers[0].setStream(written)  # type: ignore[attr-defined]
    try:
        yield written
    finally:
        root.handlers = handlers
        root.setLevel(before)
        structlog.contextvars.clear_contextvars()
        structlog.reset_defaults()
