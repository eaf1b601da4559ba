"""Logs: repeated lines of client libraries are rate-limited."""

from __future__ import annotations

import logging

from shashin.runtime.logging import _Repeats


def record(name: str, message: str) -> logging.LogRecord:
    return logging.LogRecord(name, logging.ERROR, "", 0, message, (), None)


def test_repeated_lines_of_client_libraries_are_rate_limited() -> None:
    now = 100.0
    repeats = _Repeats(lambda: now)
    assert repeats.filter(record("aiokafka.conn", "refused"))
    assert not repeats.filter(record("aiokafka.conn", "refused"))
    assert repeats.filter(record("aiokafka.conn", "something else"))
    assert repeats.filter(record("services.indexer", "refused"))
    assert repeats.filter(record("services.indexer", "refused"))
    now += 11
    assert repeats.filter(record("aiokafka.conn", "refused"))
