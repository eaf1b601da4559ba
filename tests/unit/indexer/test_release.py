"""A sealed shard is released once held elsewhere for long enough without interruption."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.indexer.release import due_for_release, held_elsewhere
from shashin.offsets.ranges import MergedRanges, OffsetRange
from shashin.shards.open_shard import OpenShard
from tests.support.made_shards import open_shard

AFTER = 3.0


def shard(begin: int, end: int, partition: int = 0) -> OpenShard:
    made = open_shard(from_offset=begin, partition=partition)
    made.read_up_to(end)
    return made


@given(
    st.integers(0, 9),
    st.integers(1, 5),
    st.lists(
        st.builds(OffsetRange, st.integers(0, 1), st.integers(0, 9), st.integers(0, 16)), max_size=6
    ),
)
def test_a_shard_is_held_elsewhere_when_all_its_offsets_are(
    begin: int, length: int, held: list[OffsetRange]
) -> None:
    offsets = {o for r in held if r.partition == 0 for o in range(r.from_offset, r.to_offset)}
    expected = set(range(begin, begin + length)) <= offsets
    ours = shard(begin, begin + length)
    assert held_elsewhere(ours, MergedRanges(held)) == expected
    due, since = due_for_release([ours], iter(held), {}, 10.0, after_seconds=0.0)
    assert (due == [ours], since) == (expected, {})


@given(st.lists(st.tuples(st.booleans(), st.sampled_from([0.0, 0.5, 1.0, 2.5, 4.0])), max_size=30))
def test_a_shard_is_due_once_every_poll_for_long_enough_has_seen_it_elsewhere(
    polls: list[tuple[bool, float]],
) -> None:
    ours = shard(0, 5)
    now, since = 100.0, dict[str, float]()
    seen_first: float | None = None
    for is_held, pause in polls:
        now += pause
        held = [OffsetRange(0, 0, 9)] if is_held else [OffsetRange(0, 0, 4)]
        if not is_held:
            seen_first = None
        elif seen_first is None:
            seen_first = now
        due, since = due_for_release([ours], held, since, now, AFTER)
        assert (due == [ours]) == (seen_first is not None and now - seen_first >= AFTER)
        if due:
            break


def test_a_flapping_endpoint_restarts_the_wait() -> None:
    ours, held = shard(0, 5), [OffsetRange(0, 0, 5)]
    _, since = due_for_release([ours], held, {}, 10.0, AFTER)
    assert since == {ours.shard_id: 10.0}
    _, since = due_for_release([ours], [], since, 12.0, AFTER)
    assert since == {}
    due, since = due_for_release([ours], held, since, 14.0, AFTER)
    assert (due, since) == ([], {ours.shard_id: 14.0})
    due, since = due_for_release([ours], held, since, 17.0, AFTER)
    assert (due, since) == ([ours], {})


def test_each_shard_is_checked_by_its_own_range() -> None:
    first, second, other = shard(0, 5), shard(5, 9), shard(0, 5, partition=1)
    held = [OffsetRange(0, 0, 7)]
    due, since = due_for_release([first, second, other], held, {}, 10.0, 0.0)
    assert due == [first]
    assert since == {}


def test_ranges_of_several_index_servers_are_combined() -> None:
    held = [OffsetRange(0, 3, 5), OffsetRange(0, 0, 3)]
    assert held_elsewhere(shard(0, 5), MergedRanges(held))
