"""The queue of thumbnails is bounded in bytes, first in first out, and takes none twice."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from shashin.thumbnails.recent import RecentHashes
from shashin.thumbnails.write_queue import Offer, WriteQueue

LIMIT = 100
NAMES = st.sampled_from("abcdef")
STEPS = st.lists(
    st.tuples(st.just("offer"), NAMES, st.integers(0, 60))
    | st.tuples(st.sampled_from(["next", "written", "failed"]), st.just(""), st.just(0)),
    max_size=60,
)


@given(STEPS)
def test_it_does_as_a_plain_list_would(steps: list[tuple[str, str, int]]) -> None:
    queue = WriteQueue(LIMIT)
    waiting: list[tuple[str, int]] = []
    writing: list[tuple[str, int]] = []
    there: set[str] = set()
    for what, name, size in steps:
        if what == "offer":
            held = sum(size for _, size in waiting + writing)
            known = name in there or name in dict(waiting + writing)
            outcome = queue.offer(name, bytes(size))
            if known:
                assert outcome is Offer.KNOWN
            elif held + size > LIMIT:
                assert outcome is Offer.NO_ROOM
            else:
                assert outcome is Offer.TAKEN
                waiting.append((name, size))
        elif what == "next":
            expected = waiting.pop(0) if waiting else None
            found = queue.next()
            assert (found is None) == (expected is None)
            if expected is not None and found is not None:
                assert (found[0], len(found[1])) == expected
                writing.append(expected)
        elif writing:
            ended, _ = writing.pop()
            queue.done(ended, written=what == "written")
            if what == "written":
                there.add(ended)
        assert queue.held_bytes == sum(size for _, size in waiting + writing) <= LIMIT
        assert queue.unwritten == len(waiting) + len(writing)


@given(st.lists(NAMES, max_size=50), st.integers(1, 5))
def test_what_was_used_last_is_remembered(names: list[str], limit: int) -> None:
    recent = RecentHashes(limit)
    for name in names:
        recent.add(name)
    last = list(dict.fromkeys(reversed(names)))[:limit]
    assert [name for name in "abcdef" if name in recent] == sorted(last)
    assert len(recent) == len(last) == len(Counter(last))


def test_a_look_up_counts_as_use() -> None:
    recent = RecentHashes(2)
    recent.add("a")
    recent.add("b")
    assert "a" in recent
    recent.add("c")
    assert ("a" in recent, "b" in recent) == (True, False)
