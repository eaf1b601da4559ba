"""Data sets, exact search, and filters of a selectivity."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bench.search.data import DIMENSIONS, exact, made, recall
from bench.search.filters import LAYOUTS, Grouped, filter_for, matching
from bench.search.plot import apart
from bench.search.resident import CODES, mapped
from bench.search.sealed import listing_id, row_of


@pytest.mark.parametrize("name", ["easy", "hard"])
def test_a_data_set_is_the_same_each_time_and_no_query_is_a_row(name: str) -> None:
    data, again = made(name, 500, 20), made(name, 500, 20)
    assert np.array_equal(data.rows, again.rows)
    assert np.array_equal(data.queries, again.queries)
    assert data.rows.shape == (500, DIMENSIONS)
    assert np.allclose(np.linalg.norm(data.rows, axis=1), 1, atol=1e-5)
    assert (data.queries @ data.rows.T).max() < 0.9999


def test_exact_search_is_that_of_a_sort() -> None:
    data = made("hard", 400, 15)
    expected = np.argsort(-(data.queries @ data.rows.T), axis=1, kind="stable")[:, :10]
    assert np.array_equal(exact(data.rows, data.queries, 10), expected)
    assert recall(expected, data.nearest) == 1.0


def test_exact_filtered_search_finds_only_what_is_allowed() -> None:
    data = made("easy", 400, 15)
    allowed = np.zeros(400, np.bool_)
    allowed[[3, 77, 200]] = True
    found = exact(data.rows, data.queries, 10, allowed)
    assert {int(row) for row in found.ravel()} == {-1, 3, 77, 200}
    assert recall(found, found) == 1.0


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("selectivity", [0.5, 0.1, 0.01])
def test_about_the_share_of_rows_meets_a_filter(layout: str, selectivity: float) -> None:
    data = made("easy", 6_000, 5)
    grouped = Grouped.over(data.rows)
    for query in data.queries:
        mask = matching(filter_for(query, grouped, layout, selectivity), grouped)
        assert 0.4 * selectivity <= mask.mean() <= 2.5 * selectivity


def test_correlated_filters_match_what_is_near_and_the_others_what_is_far() -> None:
    data = made("easy", 6_000, 5)
    grouped = Grouped.over(data.rows)
    for query in data.queries:
        scores = data.rows @ query
        means = [
            scores[matching(filter_for(query, grouped, layout, 0.1), grouped)].mean()
            for layout in ("correlated", "random", "anti-correlated")
        ]
        assert means == sorted(means, reverse=True)


def test_a_listing_names_its_row() -> None:
    assert row_of(listing_id(123_456)) == 123_456


def test_labels_are_moved_apart_and_keep_their_order() -> None:
    assert apart([0.5, 0.1, 0.51], 0.05) == [0.5, 0.1, 0.55]


def test_only_the_pages_of_what_every_search_reads_count_as_resident(tmp_path: Path) -> None:
    head = "7f00-7f01 r--s 00000000 fe:00 {} {}\nSize: 64 kB\nRss: {} kB\nPss: 1 kB\n"
    maps = (
        head.format(1, f"{tmp_path}/one/codes.npy", 40)
        + head.format(2, f"{tmp_path}/one/vectors.npy", 500)
        + head.format(3, "/usr/lib/libc.so", 900)
        + "7f00-7f01 rw-p 00000000 00:00 0\nSize: 64 kB\nRss: 7 kB\n"
        + head.format(4, f"{tmp_path}/one/scales.npy", 2)
    )
    assert mapped(tmp_path, maps, CODES) == 42 * 1024
