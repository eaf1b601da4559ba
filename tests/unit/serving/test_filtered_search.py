"""Filtered searches over several shards, open and sealed, with hidden rows: exactly what brute force finds."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shashin.serving.searched_shards import SearchedShards
from shashin.shards.format.row import NO_TIME, NewRow, RowAttributes
from shashin.shards.kinds import stack as stack_module
from shashin.shards.kinds.registry import growing_kind
from shashin.shards.row_filter import PriceRange, RowFilter, TimeRange
from shashin.shards.sealed_shard import SealedShard
from shashin.shards.shard import Shard
from tests.support.filter_rule import passes
from tests.support.made_shards import new_row, open_shard, vectors, write
from tests.support.searching import FoundRow, search_shards

CATEGORIES = ["", "fashion", "fashion/shoes", "fashion/shoes/sneakers", "fashion/shoes2", "toys"]
LISTINGS = [f"listing-{number}" for number in range(12)]

ATTRIBUTES = st.builds(
    RowAttributes,
    category=st.sampled_from(CATEGORIES),
    brand=st.sampled_from(["", "ACME", "Other"]),
    price_minor=st.integers(0, 4),
    currency=st.sampled_from(["", "JPY", "EUR"]),
    listed_at=st.sampled_from([NO_TIME, 0, 1, 2]),
)
BOUNDS = st.none() | st.integers(0, 4)
FILTERS = st.builds(
    RowFilter,
    categories=st.lists(st.sampled_from(CATEGORIES), max_size=2).map(tuple),
    category_prefixes=st.lists(
        st.sampled_from(["fashion", "fashion/shoes", "books"]), max_size=2
    ).map(tuple),
    brands=st.lists(st.sampled_from(["ACME", "Other", "unknown"]), max_size=2).map(tuple),
    prices=st.lists(
        st.builds(PriceRange, st.sampled_from(["JPY", "EUR"]), BOUNDS, BOUNDS), max_size=2
    ).map(tuple),
    listed=st.lists(st.builds(TimeRange, BOUNDS, BOUNDS), max_size=2).map(tuple),
)
LISTED = st.tuples(st.sampled_from(LISTINGS), st.integers(1, 2))
"""A listing with so many photos; again in another shard, or twice in one, it is the same rows."""


def rows_of(
    attributes: dict[str, RowAttributes], listed: Sequence[tuple[str, int]]
) -> list[NewRow]:
    return [
        new_row(listing, photo=photo, attributes=attributes[listing])
        for listing, photos in listed
        for photo in range(photos)
    ]


def sealed(rows: list[NewRow], number: int, kind: str, folder: Path) -> Shard:
    shard = open_shard(rows, from_offset=1000 * number, kind=growing_kind(kind))
    manifest = write(shard, folder / str(number))
    return SealedShard(manifest, folder / str(number))


def nearest_of(rows: Sequence[NewRow], query: np.ndarray, k: int) -> list[tuple[str, int]]:
    """Return listing and photo of the nearest row of each of the k nearest listings."""
    best: dict[str, tuple[float, int]] = {}
    for new in rows:
        found = float(new.vector @ query), new.row.photo_number
        best[new.row.listing_id] = max(found, best.get(new.row.listing_id, found))
    ranked = sorted(best.items(), key=lambda item: -item[1][0])[:k]
    return [(listing, photo) for listing, (_, photo) in ranked]


def identities(hits: Sequence[FoundRow]) -> list[tuple[str, int]]:
    return [(hit.row.listing_id, hit.row.photo_number) for hit in hits]


@pytest.mark.parametrize(
    ("kind", "exact_rows"), [("usearch-hnsw", 4_000), ("ivf-sq4", 4_000), ("ivf-sq4", 0)]
)
def test_a_search_finds_the_nearest_of_the_visible_rows_that_match_and_no_other(
    kind: str, exact_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stack_module, "_EXACT_ROWS", exact_rows)

    @settings(deadline=None, max_examples=60)
    @given(
        st.fixed_dictionaries(dict.fromkeys(LISTINGS, ATTRIBUTES)),
        st.lists(st.lists(LISTED, min_size=1, max_size=8), max_size=3),
        st.lists(LISTED, max_size=8),
        st.sets(st.sampled_from(LISTINGS), max_size=4),
        st.lists(FILTERS, min_size=1, max_size=4),
        st.integers(1, 8),
    )
    def match(
        attributes: dict[str, RowAttributes],
        of_sealed: list[list[tuple[str, int]]],
        of_open: list[tuple[str, int]],
        hidden: set[str],
        filters: list[RowFilter],
        k: int,
    ) -> None:
        of_shards = [rows_of(attributes, listed) for listed in (*of_sealed, of_open)]
        with tempfile.TemporaryDirectory() as folder:
            shards = [
                sealed(rows, number, kind, Path(folder))
                for number, rows in enumerate(of_shards[:-1])
            ]
            opened = open_shard(of_shards[-1], from_offset=9000, kind=growing_kind(kind))
            shards.append(opened)
            for shard in shards:
                for listing in hidden:
                    shard.hide(listing, 2)
            searched = SearchedShards(shards)
            queries = vectors(2, seed=k)
            for row_filter in (*filters, filters[0]):
                left = [
                    new
                    for rows in of_shards
                    for new in rows
                    if new.row.listing_id not in hidden and passes(new.row.attributes, row_filter)
                ]
                found = search_shards(shards, queries, k, row_filter, searched)
                for query, hits in zip(queries, found, strict=True):
                    assert identities(hits) == nearest_of(left, query, k)
                    assert len(hits) == min(k, len({new.row.listing_id for new in left}))

    match()
