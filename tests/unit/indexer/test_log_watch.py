"""What the watch of the log says of its end and of the stages before, from samples."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.indexer.dead_letter_watch import DeadLetterCounts
from services.indexer.log_watch import SEARCHABLE_WITHIN_SECONDS, LogEnds, StageProgress
from shashin.offsets.coverage import StageLag
from shashin.offsets.progress import PartitionOffsets, StageOffsets
from shashin.runtime.health import LONG_WAIT_SECONDS


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_what_the_log_held_at_the_start_is_required_at_once_and_the_rest_a_second_later() -> None:
    clock = Clock()
    ends = LogEnds(clock)
    assert ends.partitions == 0
    assert ends.searchable_up_to() == {}
    ends.note({0: 5, 2: 9})
    assert ends.partitions == 3
    assert ends.searchable_up_to() == {0: 5, 2: 9}
    clock.now += 0.25
    ends.note({0: 7, 2: 9})
    assert ends.searchable_up_to() == {0: 5, 2: 9}, "a healthy live tier may be this far behind"
    clock.now += SEARCHABLE_WITHIN_SECONDS
    assert ends.searchable_up_to() == {0: 7, 2: 9}, "also if no sample follows"


@given(st.lists(st.tuples(st.floats(0.01, 0.7), st.integers(0, 3)), min_size=1, max_size=30))
def test_an_offset_is_required_once_it_was_seen_a_second_ago(
    samples: list[tuple[float, int]],
) -> None:
    clock = Clock()
    ends = LogEnds(clock)
    seen = []
    end = 0
    for seconds, records in samples:
        clock.now += seconds
        end += records
        ends.note({0: end})
        seen.append((clock.now, end))
        due = [e for at, e in seen if at <= clock.now - SEARCHABLE_WITHIN_SECONDS]
        assert ends.searchable_up_to() == {0: max([seen[0][1], *due])}


def test_an_end_that_cannot_be_sampled_for_long_is_unknown_and_the_last_one_stays() -> None:
    clock = Clock()
    ends = LogEnds(clock)
    ends.note({0: 5})
    clock.now += 4
    assert ends.unknown_seconds() == 0
    clock.now += 36
    assert ends.unknown_seconds() == 40
    assert ends.searchable_up_to() == {0: 5}
    ends.note({0: 5})
    assert ends.unknown_seconds() == 0


def test_a_stage_is_behind_by_the_records_that_it_has_not_processed_since_they_were_seen() -> None:
    clock = Clock()
    progress = StageProgress("embedder", clock)
    assert progress.lag() == StageLag("embedder", None), "unknown before the first sample"
    progress.note({0: 4, 1: 0}, {0: 4, 1: 0})
    assert progress.lag() == StageLag("embedder", 0, 0.0)
    clock.now += 1
    progress.note({0: 4, 1: 0}, {0: 6, 1: 0})
    clock.now += 1
    progress.note({0: 5, 1: 0}, {0: 9, 1: 3})
    clock.now += 1
    assert progress.lag() == StageLag("embedder", 4 + 3, 2.0), "offset 5 was seen 2 seconds ago"
    progress.note({0: 6, 1: 3}, {0: 9, 1: 3})
    assert progress.lag() == StageLag("embedder", 3, 1.0), "offset 6 was seen 1 second ago"
    progress.note({0: 9, 1: 3}, {0: 9, 1: 3})
    assert progress.lag() == StageLag("embedder", 0, 0.0)
    clock.now += 6
    assert progress.lag() == StageLag("embedder", None), "the last sample is too old"


def test_records_that_waited_before_the_first_sample_are_as_old_as_the_log_says() -> None:
    clock = Clock()
    progress = StageProgress("embedder", clock)
    processed, ends = {0: 4, 1: 7}, {0: 9, 1: 7}
    assert progress.waiting_from_before(processed, ends) == {0: 4}
    progress.note(processed, ends, {0: 3600.0})
    assert progress.lag() == StageLag("embedder", 5, 3600.0)
    clock.now += 1
    assert progress.lag() == StageLag("embedder", 5, 3601.0)
    # What comes after the first sample is aged by the samples.
    assert progress.waiting_from_before({0: 8, 1: 7}, {0: 12, 1: 9}) == {0: 8}
    assert progress.waiting_from_before({0: 9, 1: 7}, {0: 12, 1: 9}) == {}
    progress.note({0: 9, 1: 7}, {0: 12, 1: 9})
    assert progress.lag() == StageLag("embedder", 5, 0.0)


def test_the_offsets_of_a_stage_are_those_of_the_last_sample_while_it_is_recent() -> None:
    clock = Clock()
    progress = StageProgress("embedder", clock)
    assert progress.offsets("t") is None, "unknown before the first sample"
    progress.note({0: 3, 1: 0}, {0: 5, 1: 0})
    clock.now += 2
    progress.note({0: 4, 1: 0}, {0: 6, 1: 0})
    found = progress.offsets("t")
    assert found == StageOffsets(
        "embedder", "t", 2.0, {0: PartitionOffsets(4, 6), 1: PartitionOffsets(0, 0)}
    )
    assert progress.lag() == StageLag("embedder", 2, 2.0)
    clock.now += LONG_WAIT_SECONDS + 1
    assert progress.offsets("t") is None


@given(st.dictionaries(st.integers(0, 4), st.tuples(st.integers(0, 9), st.integers(0, 9))))
def test_dead_letters_are_what_the_partitions_retain_and_unknown_after_a_while(
    sizes: dict[int, tuple[int, int]],
) -> None:
    clock = Clock()
    counts = DeadLetterCounts(clock)
    assert counts.records() == {}
    begins = {p: begin for p, (begin, _) in sizes.items()}
    counts.note("a.dlq", begins, {p: begin + records for p, (begin, records) in sizes.items()})
    assert counts.records() == {"a.dlq": sum(records for _, records in sizes.values())}
    clock.now += LONG_WAIT_SECONDS + 60
    assert counts.records() == {}
