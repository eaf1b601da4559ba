"""Growing indexes: searched while another thread adds, and then written."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.kind_under_test import KindUnderTest
from tests.support.made_shards import DIMENSIONS, vectors


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 60), st.integers(1, 20), st.integers(0, 1000))
def test_a_written_index_answers_as_the_one_did_that_it_was_written_from(
    growing: KindUnderTest, count: int, k: int, seed: int
) -> None:
    grown = growing.grown(vectors(count, seed))
    group = (np.arange(count) // 3).astype(np.uint32)
    allowed = np.arange(count) % 4 != 1
    with tempfile.TemporaryDirectory() as folder:
        grown.write(Path(folder))
        opened = growing.kind.open(grown.spec, Path(folder))
    assert len(opened) == len(grown) == count
    assert np.array_equal(opened.vectors(np.arange(count)), grown.vectors(np.arange(count)))
    for mask in (None, allowed):
        answers = [
            index.search(vectors(2, 9), k, allowed=mask, group=group, groups=count // 3 + 1)
            for index in (grown, opened)
        ]
        for one, other in zip(*answers, strict=True):
            assert one.rows.tolist() == other.rows.tolist()
            assert one.scores.tolist() == other.scores.tolist()


def test_memory_grows_with_added_vectors_and_a_mapped_index_uses_less(
    growing: KindUnderTest,
) -> None:
    rows = vectors(4_000, 1)
    grown = growing.grown(rows[:0])
    seen = [grown.memory_bytes]
    for part in np.split(rows, 4):
        grown.add(part)
        seen.append(grown.memory_bytes)
    assert seen == sorted(seen)
    at_least = len(rows) * DIMENSIONS * growing.precision.bytes_per_value
    assert seen[-1] - seen[0] > at_least
    with growing.opened(rows) as opened:
        assert opened.memory_bytes < seen[-1] / 2


def repeat(do: Callable[[], None], done: threading.Event) -> int:
    """Do it again and again until ``done``, and once more; returns how often."""
    times = 0
    while not done.is_set():
        do()
        times += 1
    do()
    return times + 1


def test_an_index_is_searched_and_read_while_another_thread_adds(growing: KindUnderTest) -> None:
    # The later ones equal some of the earlier ones.
    rows = np.concatenate([vectors(2_500, 2), vectors(1_500, 2)])
    index = growing.grown(rows[:5])
    queries, k = vectors(4, 3), 300  # long searches, so that they overlap

    def search() -> None:
        count = len(index)
        allowed = np.arange(count) % 3 != 0
        for mask in (None, allowed):
            answers = index.search(
                queries, k, allowed=mask, group=np.arange(count, dtype=np.uint32), groups=count
            )
            there = count if mask is None else np.count_nonzero(mask)
            for query, found in zip(queries, answers, strict=True):
                assert len(set(found.rows.tolist())) == len(found.rows) == min(k, there)
                assert (found.rows < count).all()
                assert mask is None or mask[found.rows].all()
                assert found.scores == pytest.approx(
                    rows[found.rows] @ query, abs=growing.precision.scores
                )

    def read() -> None:
        numbers = np.unique(np.linspace(0, len(index) - 1, num=20).astype(np.int64))
        assert index.vectors(numbers) == pytest.approx(rows[numbers], abs=growing.precision.vectors)

    def measure() -> None:
        assert index.memory_bytes >= 0

    done = threading.Event()
    with ThreadPoolExecutor(4) as others:
        running = [others.submit(repeat, do, done) for do in (search, search, read, measure)]
        try:
            for start in range(5, len(rows), 50):
                index.add(rows[start : start + 50])
        finally:
            done.set()
        assert all(one.result() > 0 for one in running)
    assert len(index) == len(rows)
    assert index.vectors(np.arange(len(rows))) == pytest.approx(rows, abs=growing.precision.vectors)


def test_searching_a_growing_index_does_not_change_its_file(
    growing: KindUnderTest, tmp_path: Path
) -> None:
    rows = vectors(500, 4)
    files = []
    for watched in (True, False):
        folder = tmp_path / str(watched)
        folder.mkdir()
        index = growing.grown(rows[:0])
        for number in range(len(rows)):
            index.add(rows[number : number + 1])
            if watched:
                group = np.arange(len(index), dtype=np.uint32)
                index.search(vectors(1, number), 3, allowed=None, group=group, groups=len(index))
        files.append([(folder / name).read_bytes() for name in index.write(folder)])
    assert files[0] == files[1]
