"""The trace of a record, in its headers."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from shashin.errors import InvalidEvent
from shashin.kafka.dead_letters import DeadLetter
from shashin.kafka.dlq_entries import entries_of
from shashin.kafka.record_traces import exemplar, extract, inject
from shashin.kafka.records import InRecord
from shashin.kafka.replay_plan import plan_replays, replayed_record
from shashin.kafka.topics import LISTINGS_EVENTS

TRACE = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
OTHER = {"traceparent": "00-11111111111111111111111111111111-2222222222222222-01"}
STATE = {"tracestate": "vendor=value"}

names = st.sampled_from(["traceparent", "tracestate", "event-time-ms", "Traceparent", ""])
headers = st.lists(st.tuples(names, st.none() | st.binary(max_size=600)))


def test_what_was_injected_is_extracted() -> None:
    assert extract(inject([], TRACE)) == TRACE
    assert extract(inject([], TRACE | STATE)) == TRACE | STATE


def test_other_headers_stay_and_an_earlier_trace_does_not() -> None:
    before = inject([("event-time-ms", b"17"), ("empty", None)], OTHER | STATE)
    after = inject(before, TRACE)
    assert list(after[:2]) == [("event-time-ms", b"17"), ("empty", None)]
    assert extract(after) == TRACE


def test_the_first_of_a_repeated_header_counts() -> None:
    both = [*inject([], TRACE), *inject([], OTHER)]
    assert extract(both) == TRACE


def test_what_cannot_be_such_a_header_is_none() -> None:
    for value in (None, b"\xff\xfe", b"0" * 600):
        assert extract([("traceparent", value)]) is None
    assert extract([("tracestate", b"vendor=value")]) is None


def test_an_exemplar_leads_to_a_trace_that_is_kept() -> None:
    kept = TRACE["traceparent"]
    assert exemplar(inject([], TRACE)) == {"trace_id": kept.split("-")[1]}
    for other in (kept[:-1] + "0", kept[:-2], "01" + kept[2:], kept.upper(), kept + "-00", ""):
        assert exemplar(inject([], {"traceparent": other})) is None
    assert exemplar([]) is None


@given(headers)
def test_no_header_of_a_foreign_producer_raises(found: list[tuple[str, bytes | None]]) -> None:
    carrier = extract(found)
    assert carrier is None or "traceparent" in carrier
    assert extract(inject(found, TRACE)) == TRACE


def test_a_dead_letter_and_its_replay_continue_the_trace_of_the_record() -> None:
    record = InRecord(
        LISTINGS_EVENTS, 1, 9, 0, b"lamp", b"value", [*inject([("app", b"x")], TRACE | STATE)]
    )
    dead = DeadLetter(record, InvalidEvent("it is bad"), "test").as_record()
    assert extract(dead.headers) == TRACE | STATE
    stored = InRecord(dead.topic, 1, 0, 0, dead.key, dead.value, dead.headers)
    entries = entries_of([stored])
    (replay,) = plan_replays(entries, [entry.dead_letter.entry_id for entry in entries])
    again = replayed_record(replay, stored)
    assert extract(again.headers) == TRACE | STATE
    assert [name for name, _ in again.headers] == ["traceparent", "tracestate"]
    untraced = replace(stored, headers=[h for h in stored.headers if not h[0].startswith("trace")])
    assert replayed_record(replay, untraced).headers == ()
