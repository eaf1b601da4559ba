from __future__ import annotations

import math
import random
from dataclasses import replace
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shashin.offsets.ranges import OffsetRange
from shashin.repository.contents import Contents, arrangement_problems, gaps, overlapping
from shashin.repository.repository import StoredShard
from shashin.shards.format.manifest import Manifest
from shashin.shards.format.shard_id import shard_id
from tests.support.counted_offsets import Counted, comparisons_of


def manifest(partition: int, start: int, end: int, tier: str = "hourly") -> Manifest:
    source = OffsetRange(partition, start, end)
    return Manifest(
        shard_id=shard_id("m", tier, [source]),
        tier=tier,
        bucket_start=0,
        bucket_seconds=20,
        model_id="m",
        dimensions=4,
        metric="ip",
        stored_type="bf16",
        index_kind="usearch-hnsw",
        index_parameters={},
        rows=end - start,
        listings=end - start,
        files=(),
        source_ranges=(source,),
        cut_reason="time",
        recall_at_10=1.0,
        created_at=0.0,
    )


def contents(*manifests: Manifest) -> Contents:
    return Contents(shards=[StoredShard(m, f"indexes/{m.shard_id}") for m in manifests])


@given(st.lists(st.integers(1, 9), min_size=1, max_size=30), st.randoms())
def test_shards_that_tile_the_log_have_no_problem(lengths: list[int], rng: object) -> None:
    manifests, at = [], 5
    for length in lengths:
        manifests.append(manifest(0, at, at + length))
        at += length
    rng.shuffle(manifests)  # type: ignore[attr-defined]
    assert overlapping(manifests) == []
    assert arrangement_problems(contents(*manifests)) == []


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 30), st.integers(1, 9)), max_size=12))
def test_overlaps_are_found_exactly_where_two_shards_share_an_offset(
    spans: list[tuple[int, int, int]],
) -> None:
    manifests = [manifest(p, start, start + length) for p, start, length in spans]
    held = [{(p, o) for o in range(start, start + n)} for p, start, n in spans]
    any_shared = sum(map(len, held)) > len(set().union(*held)) if held else False
    assert bool(overlapping(manifests)) == any_shared


SPANS = st.tuples(st.integers(0, 2), st.integers(0, 30), st.integers(0, 9))


@given(st.lists(st.lists(SPANS, min_size=1, max_size=3), max_size=10))
def test_every_shard_that_shares_an_offset_is_named_with_one_that_it_shares_it_with(
    shards: list[list[tuple[int, int, int]]],
) -> None:
    manifests, held = [], {}
    for number, spans in enumerate(shards):
        sources = tuple(OffsetRange(p, start, start + length) for p, start, length in spans)
        made = replace(manifest(0, 0, 1), shard_id=f"shard-{number}", source_ranges=sources)
        manifests.append(made)
        held[made.shard_id] = {(p, o) for p, start, n in spans for o in range(start, start + n)}
    sharing = [(a, b) for a, b in combinations(sorted(held), 2) if held[a] & held[b]]
    found = overlapping(manifests)
    assert set(found) <= set(sharing)
    assert len(found) == len(set(found))
    assert {shard for pair in found for shard in pair} == {s for pair in sharing for s in pair}


@pytest.mark.parametrize("length", [10, 15, 10_000_000])
def test_looking_for_overlaps_and_gaps_takes_n_log_n_comparisons(length: int) -> None:
    count = 2000
    manifests = [
        replace(manifest(0, 0, 1), shard_id=f"shard-{n}", source_ranges=(source,))
        for n in range(count)
        for source in [
            OffsetRange(Counted(n % 500), Counted(n // 500 * 10), Counted(n // 500 * 10 + length))
        ]
    ]
    random.Random(3).shuffle(manifests)
    ranges = [r for made in manifests for r in made.source_ranges]
    most = 12 * count * math.log2(count)
    assert comparisons_of(lambda: overlapping(manifests)) < most
    assert comparisons_of(lambda: gaps(ranges)) < most


def test_a_gap_is_named() -> None:
    ranges = [OffsetRange(0, 0, 5), OffsetRange(0, 7, 9), OffsetRange(1, 3, 4)]
    assert gaps(ranges) == [OffsetRange(0, 5, 7)]
    problems = arrangement_problems(contents(manifest(0, 0, 5), manifest(0, 7, 9)))
    assert problems == ["m: no shard contains offsets 0:[5, 7)"]


def test_a_parent_and_its_child_do_not_overlap() -> None:
    both = contents(manifest(0, 0, 5), manifest(0, 0, 5, tier="daily"))
    assert arrangement_problems(both) == []


def test_a_pointer_to_a_shard_that_is_gone_is_a_problem() -> None:
    found = contents(manifest(0, 0, 5))
    found.pointed = {("m", "hourly"): {found.shards[0].manifest.shard_id, "m.hourly.gone"}}
    assert arrangement_problems(found) == [
        "the pointer of m hourly names shard m.hourly.gone, which does not exist"
    ]
