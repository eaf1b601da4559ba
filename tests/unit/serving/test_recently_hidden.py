"""What an index server remembers of ``listings.hidden``: the latest entries, and from where on all."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from shashin.offsets.log_position import LogPosition
from shashin.serving.hidden_listings import LogBounds, RecentlyHidden
from shashin.shards.visibility import HiddenEntry

PARTITIONS = 3


@given(
    st.lists(st.lists(st.integers(0, PARTITIONS - 1), max_size=6), max_size=12),
    st.integers(0, 7),
    st.tuples(*[st.integers(0, 20)] * PARTITIONS),
)
def test_from_any_position_on_all_entries_are_known_or_it_is_said_that_they_are_not(
    batches: list[list[int]], limit: int, begin: tuple[int, ...]
) -> None:
    recent = RecentlyHidden(limit)
    begins = dict.fromkeys(range(PARTITIONS), 2)
    recent.open_at(LogBounds("topic", begins, begins))
    ends = dict(begins)
    noted: list[HiddenEntry] = []
    for batch in batches:
        entries = []
        for partition in batch:
            entries.append(HiddenEntry(f"listing-{len(noted)}", 2, partition, ends[partition]))
            noted.append(entries[-1])
            ends[partition] += 1
        recent.note(entries, LogPosition("topic", dict(ends)))
    known, position = recent.known(), LogPosition("topic", dict(enumerate(begin)))
    latest = noted[max(0, len(noted) - limit) :]
    assert sorted(known.entries, key=noted.index) == latest
    assert len(recent) == len(latest)
    assert {e for e in noted if e.offset >= known.since.offset(e.partition)} <= set(latest)
    assert set(known.from_position(position)) == {
        e for e in latest if e.offset >= position.offset(e.partition)
    }


def test_what_is_known_at_one_moment_does_not_change_with_later_entries() -> None:
    recent = RecentlyHidden(limit=2)
    recent.open_at(LogBounds("topic", {0: 0}, {0: 0}))
    entries = [HiddenEntry(f"listing-{n}", 2, 0, n) for n in range(4)]
    recent.note(entries[:2], LogPosition("topic", {0: 2}))
    known = recent.known()
    recent.note(entries[2:], LogPosition("topic", {0: 4}))
    assert known.from_position(LogPosition("topic", {0: 1})) == entries[1:2]
    assert known.since.offset(0) == 0
    assert recent.known().since.offset(0) == 2
