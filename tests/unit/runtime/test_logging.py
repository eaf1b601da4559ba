"""Logs: what client libraries repeat is told once."""

from __future__ import annotations

import logging

from shashin.runtime.logging import _Repeats


def record(name: str, message: str) -> logging.LogRecord:
    return logging.LogRecord(name, logging.ERROR, "", 0, message, (), None)


def test_a_client_library_says_the_same_once_in_a_while() -> None:
    now = 100.0
    repeats = _Repeats(lambda: now)
    assert repeats.filter(record("aiokafka.conn", "refused"))
    assert not repeats.filter(record("aiokafka.conn", "refused"))
    assert repeats.filter(record("aiokafka.conn", "something else"))
    assert repeats.filter(record("services.indexer", "refused"))
    assert repeats.filter(record("services.indexer", "refused"))
    now += 11
    assert repeats.filter(record("aiokafka.conn", "refused"))
