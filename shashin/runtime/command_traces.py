"""Traces of a command that publishes listing events: on if its environment names a collector."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from shashin.runtime import tracing
from shashin.runtime.settings import TraceSettings, load_settings


@contextmanager
def command_traced() -> Iterator[None]:
    """Trace while the context is open; its end waits for the collector for two seconds at most.

    Raises:
        SettingsError: when a setting of traces is invalid.
    """
    settings = load_settings(TraceSettings)
    tracing.start(
        "shashin",
        endpoint=settings.trace_endpoint,
        share=settings.trace_share,
        per_second=settings.traces_per_second,
    )
    try:
        yield
    finally:
        tracing.stop()
