"""What came of requests: counted once, from when they were due, in bounded memory."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shashin.workload.load.recorder import MAX_WINDOWS, NOT_SENT, OK, KindRecorder, Record

RECORDS = st.builds(
    lambda due, late, took, outcome: Record("queries", due, due + late, due + late + took, outcome),
    st.floats(0, 5000),
    st.floats(0, 5),
    st.floats(0, 100),
    st.sampled_from([OK, "NoEndpoint", "incomplete"]),
)


@given(st.lists(RECORDS, max_size=60))
def test_every_request_is_in_one_window_and_windows_are_few(records: list[Record]) -> None:
    kind = KindRecorder()
    for record in records:
        kind.add(record)
    assert len(kind.windows) <= MAX_WINDOWS
    assert sum(window.due for window in kind.windows) == kind.total.due == len(records)
    assert sum(window.done for window in kind.windows) == len(records)
    for outcome in (OK, "NoEndpoint", "incomplete"):
        expected = sum(record.outcome == outcome for record in records)
        assert sum(window.outcomes[outcome] for window in kind.windows) == expected
    for number, window in enumerate(kind.windows):
        begin = number * kind.window_seconds
        assert window.due == sum(
            begin <= record.due < begin + kind.window_seconds for record in records
        )


def test_latency_counts_from_when_a_request_was_due() -> None:
    kind = KindRecorder()
    kind.add(Record("queries", due=1.0, sent=3.0, done=3.5, outcome=OK))
    assert kind.total.latency.percentile(0.5) == pytest.approx(2.5, rel=0.01)
    assert kind.sent_late == 1
    assert kind.lateness.max == pytest.approx(2.0)


def test_the_latency_of_a_failure_is_not_that_of_an_answer() -> None:
    kind = KindRecorder()
    kind.add(Record("queries", 1.0, 1.0, 1.001, "NoEndpoint"))
    kind.add(Record("queries", 1.0, 1.0, 1.0, NOT_SENT))
    assert kind.total.latency.count == 0
    assert kind.total.outcomes == {"NoEndpoint": 1, NOT_SENT: 1}
    assert kind.total.done == 1
