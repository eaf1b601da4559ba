"""For how long the oldest unprocessed record of a partition waits."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from shashin.kafka.lag import Waiting
from shashin.kafka.records import InRecord


@dataclass
class Clock:
    now: float = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def records(*appended: float, first: int = 0) -> list[InRecord]:
    return [
        InRecord("listings.events", 0, offset, int(at * 1000), None, b"")
        for offset, at in enumerate(appended, start=first)
    ]


def test_a_record_waits_from_its_append_until_it_is_processed() -> None:
    clock = Clock()
    waiting = Waiting(clock)
    read = {0: records(clock.now - 20, clock.now - 1)}
    waiting.begin(read)
    clock.now += 5
    assert waiting.seconds(0) == 25, "also while it is being processed"
    waiting.end(read)
    assert waiting.seconds(0) == 0


def test_a_consumer_that_has_processed_nothing_since_its_start_lags_since_its_first_unread_record() -> (
    None
):
    clock = Clock()
    waiting = Waiting(clock)
    waiting.measured({0: 0, 1: 3}, {0: 7, 1: 3}, clock.now)
    assert waiting.seconds(0) == 0
    assert waiting.unknown() == [0], "this has to be read"
    waiting.found_unread({0: 3600.0})
    assert waiting.seconds(0) == 3600
    clock.now += 10
    assert waiting.seconds(0) == 3610
    assert waiting.seconds(1) == 0


def test_a_record_after_a_quiet_night_waits_since_the_partition_was_seen_to_be_empty() -> None:
    clock = Clock()
    waiting = Waiting(clock)
    waiting.end({0: records(clock.now)})
    clock.now += 8 * 3600
    waiting.measured({0: 1}, {0: 1}, clock.now)
    clock.now += 5
    waiting.measured({0: 1}, {0: 2}, clock.now)
    assert waiting.seconds(0) == 5


def test_a_record_that_was_measured_and_then_processed_waits_no_more() -> None:
    clock = Clock()
    waiting = Waiting(clock)
    waiting.measured({0: 5}, {0: 7}, clock.now)
    read = {0: records(clock.now - 1, clock.now, first=5)}
    waiting.begin(read)
    waiting.end(read)
    clock.now += 4
    assert waiting.seconds(0) == 0
    assert waiting.records(0) == 0


def test_partitions_of_another_member_are_forgotten() -> None:
    clock = Clock()
    waiting = Waiting(clock)
    waiting.begin({0: records(clock.now - 20)})
    waiting.measured({1: 0}, {1: 3}, clock.now)
    assert waiting.seconds(0) == 0
    assert waiting.unknown() == [1]


@dataclass
class Log:
    """One partition and its consumer."""

    clock: Clock = field(default_factory=Clock)
    appended: list[float] = field(default_factory=list)
    processed: int = 0
    read: int = 0

    def reading(self) -> list[InRecord]:
        return records(*self.appended[self.processed : self.read], first=self.processed)


@given(steps=st.lists(st.tuples(st.sampled_from("aaabemm"), st.integers(0, 5)), max_size=60))
def test_a_measured_lag_is_never_shorter_than_the_oldest_record_waits(
    steps: list[tuple[str, int]],
) -> None:
    log = Log()
    waiting = Waiting(log.clock)
    measured = True
    for what, number in steps:
        log.clock.now += 1
        if what == "a":
            log.appended += [log.clock.now] * number
            measured = measured and (log.read > log.processed or not number)
        elif what == "b" and log.read == log.processed < len(log.appended):
            log.read = min(len(log.appended), log.read + number + 1)
            waiting.begin({0: log.reading()})
            measured = True
        elif what == "e" and log.read > log.processed:
            waiting.end({0: log.reading()})
            log.processed = log.read
            measured = False
        elif what == "m":
            waiting.measured({0: log.read}, {0: len(log.appended)}, log.clock.now)
            if 0 in waiting.unknown():
                waiting.found_unread({0: log.clock.now - log.appended[log.read]})
            measured = True
        oldest = log.appended[log.processed :][:1]
        if measured:
            waits = log.clock.now - oldest[0] if oldest else 0.0
            assert waiting.seconds(0) >= waits - 0.002, "timestamps are in milliseconds"
        if not oldest:
            assert waiting.seconds(0) == 0
