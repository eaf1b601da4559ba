"""Logs: what a line has, what it never has, and how often it is repeated."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

from shashin.kafka.records import InRecord
from shashin.kafka.topics import LISTINGS_EVENTS
from shashin.runtime.logging import _Repeats, get_logger
from tests.support.collector import collecting
from tests.support.logs import logged_as_json
from tests.support.traced import tracing_on


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


def logged(write: Callable[[], object]) -> dict[str, Any]:
    """Return the one line that is logged."""
    with logged_as_json("test") as written:
        write()
    (line,) = written.getvalue().splitlines()
    found: dict[str, Any] = json.loads(line)
    return found


def test_a_line_that_is_written_in_a_span_has_its_ids() -> None:
    with collecting() as collector, tracing_on(collector) as tracer, tracer.span("work") as span:
        own = logged(lambda: get_logger("shashin.own").info("done"))
        library = logged(lambda: logging.getLogger("a.library").warning("done"))
    (found,) = collector.spans(name="work")
    assert span.log_fields == found.log_ids
    for line in (own, library):
        assert line["event"] == "done"
        assert {name: line[name] for name in found.log_ids} == found.log_ids


def test_a_line_outside_of_a_span_has_no_ids() -> None:
    line = logged(lambda: get_logger("shashin.own").info("done"))
    assert not {"trace_id", "span_id"} & line.keys()


def test_no_line_has_the_query_of_a_url() -> None:
    url = "https://user:S3CRET@host/photo.jpg?X-Amz-Signature=S3CRET"

    def fail() -> None:
        try:
            raise ValueError(f"no photo at {url}")
        except ValueError:
            get_logger("shashin.own").exception("it failed", photo=url)

    text = json.dumps(logged(fail))
    library = logged(lambda: logging.getLogger("a.library").warning("GET %s", url))
    text += json.dumps(library)
    assert text.count("https://REDACTED@host/photo.jpg?REDACTED") == 3
    assert "S3CRET" not in text


def test_a_line_about_a_record_says_which_it_is() -> None:
    record = InRecord(LISTINGS_EVENTS, 1, 9, 0, b"lamp", b"")
    line = logged(lambda: get_logger("shashin.own").info("read", **record.log_fields))
    assert (line["topic"], line["partition"], line["offset"]) == (LISTINGS_EVENTS, 1, 9)
    assert line["record"] == str(record)
