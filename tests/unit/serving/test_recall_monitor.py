"""The recall of a sample of live queries, measured on the side."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from shashin.serving.exact_scan import ExactScan
from shashin.serving.recall_monitor import RecallMonitor, Sample, found_of, pause_after
from shashin.serving.served_shards import ServedShards
from shashin.shards.kinds.protocol import Hits, Vectors
from shashin.shards.row_filter import RowFilter
from tests.support.loops import running
from tests.support.made_shards import listings, open_shard, vector_of, vectors
from tests.support.waiting import until

EVERY_ROW = RowFilter()


def counted(name: str, tier: str) -> float:
    return REGISTRY.get_sample_value(f"shashin_recall_{name}_total", {"tier": tier}) or 0.0


def hits(scores: list[float]) -> Hits:
    count = len(scores)
    zeros = np.zeros(count, np.int64)
    return Hits(
        [count],
        zeros,
        zeros,
        np.array(scores, np.float32),
        b"",
        np.zeros(count, np.uint32),
        np.zeros(count, np.uint64),
        np.zeros(count, np.uint32),
    )


def test_each_query_is_as_likely_to_be_kept_as_the_others() -> None:
    sample = Sample(random.Random(1))
    kept = [0.0] * 5
    for _ in range(2_000):
        for number in range(5):
            sample.offer(np.full((1, 8), number, np.float32), EVERY_ROW)
        query = sample.take()
        assert query is not None
        kept[int(query.vector[0])] += 1
    assert min(kept) > 300
    assert sample.take() is None


@given(
    exact=st.lists(st.floats(-1, 1, width=32), max_size=10),
    missed=st.integers(0, 10),
)
def test_recall_is_the_share_of_the_expected_hits(exact: list[float], missed: int) -> None:
    ordered = sorted(exact, reverse=True)
    # Found instead of those that were missed: ones that are further away.
    found = ordered[: max(0, len(ordered) - missed)]
    found += [-2.0] * (len(ordered) - len(found))
    expected, of_them = found_of(hits(ordered), hits(found))
    assert expected == len(ordered)
    assert of_them == len(ordered) - min(missed, len(ordered))


@given(cpu=st.floats(1e-6, 10), share=st.floats(0.001, 1))
def test_its_share_of_a_core_is_never_exceeded(cpu: float, share: float) -> None:
    assert cpu / (cpu + pause_after(cpu, share)) <= share * (1 + 1e-9)


async def test_live_queries_are_repeated_and_compared() -> None:
    served, sample = ServedShards(), Sample()
    served.serve([open_shard(listings(0, 30)), open_shard(listings(30, 50), from_offset=30)])
    monitor = RecallMonitor(served, sample, tier="daily", share=1.0)
    async with running(*monitor.loops()):
        sample.offer(vector_of("query")[np.newaxis], EVERY_ROW)
        await until(lambda: counted("replayed_queries", "daily"), "a query was repeated")
    assert counted("expected_hits", "daily") == 10
    assert counted("found_hits", "daily") == 10


async def test_hits_that_a_search_misses_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    served, sample = ServedShards(), Sample()
    served.serve([open_shard(listings(0, 50))])

    def nearest_only(queries: Vectors, k: int, row_filter: RowFilter) -> Hits:
        scan = ExactScan(served.snapshot().shards, queries[0], 1, row_filter)
        while scan.step():
            pass
        del k
        return scan.hits()

    monkeypatch.setattr(served.snapshot().searched, "search", nearest_only)
    monitor = RecallMonitor(served, sample, tier="monthly", share=1.0)
    async with running(*monitor.loops()):
        sample.offer(vectors(1, seed=3), EVERY_ROW)
        await until(lambda: counted("replayed_queries", "monthly"), "a query was repeated")
    assert (counted("found_hits", "monthly"), counted("expected_hits", "monthly")) == (1, 10)


def test_a_share_of_nothing_switches_it_off() -> None:
    assert RecallMonitor(ServedShards(), Sample(), tier="live", share=0).loops() == []
