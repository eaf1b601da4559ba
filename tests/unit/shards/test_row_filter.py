"""Filters against a plain predicate, on open rows and on the same rows sealed."""

from __future__ import annotations

import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shashin.shards.filter_masks import FilterMasks
from shashin.shards.format.open_rows import OpenRows
from shashin.shards.format.row import NO_TIME, Row, RowAttributes
from shashin.shards.format.rows_file import SealedRows, write_rows
from shashin.shards.row_filter import PriceRange, RowFilter, TimeRange
from tests.support.filter_rule import is_under, passes

T = TypeVar("T")

PATHS = ["", "a", "a-b", "a/b", "a/b/c", "a/bc", "a0", "ab", "b", "/a", "a/", "ü/é", "円"]
PRICES = st.sampled_from([0, 1, 99, 100, 2**63 - 1])
TIMES = st.sampled_from([NO_TIME, NO_TIME + 1, -5, 0, 100, 101, 2**62, 2**63 - 1])
CURRENCIES = ["JPY", "EUR", "USD"]

ATTRIBUTES = st.builds(
    RowAttributes,
    category=st.sampled_from(PATHS),
    brand=st.sampled_from(PATHS),
    price_minor=PRICES,
    currency=st.sampled_from(["", "JPY", "EUR"]),
    listed_at=TIMES,
)


def some(choices: st.SearchStrategy[T], most: int = 3) -> st.SearchStrategy[tuple[T, ...]]:
    return st.lists(choices, max_size=most).map(tuple)


FILTERS = st.builds(
    RowFilter,
    categories=some(st.sampled_from([*PATHS, "unknown"])),
    category_prefixes=some(st.sampled_from([*PATHS, "ü", "unknown"])),
    brands=some(st.sampled_from([*PATHS, "unknown"])),
    prices=some(
        st.builds(PriceRange, st.sampled_from(CURRENCIES), st.none() | PRICES, st.none() | PRICES),
        5,
    ),
    listed=some(st.builds(TimeRange, st.none() | TIMES, st.none() | TIMES)),
)


@settings(deadline=None, max_examples=60)
@given(st.lists(ATTRIBUTES, max_size=12), st.lists(FILTERS, min_size=1, max_size=6))
def test_a_mask_allows_exactly_the_rows_that_meet_every_condition(
    attributes: list[RowAttributes], filters: list[RowFilter]
) -> None:
    rows = OpenRows()
    for number, of_row in enumerate(attributes):
        rows.append(Row(f"listing-{number}", 1, 0, of_row))
    with tempfile.TemporaryDirectory() as folder:
        write_rows(rows, Path(folder) / "rows.arrow")
        sealed = SealedRows(Path(folder) / "rows.arrow")
        for row_filter in filters:
            expected = [passes(of_row, row_filter) for of_row in attributes]
            assert row_filter.mask(rows.columns(len(rows))).tolist() == expected
            assert row_filter.mask(sealed.columns(len(sealed))).tolist() == expected


@settings(deadline=None, max_examples=60)
@given(st.lists(ATTRIBUTES, max_size=12), st.lists(FILTERS, min_size=1, max_size=4), st.data())
def test_a_remembered_mask_of_growing_rows_is_that_of_all_rows(
    attributes: list[RowAttributes], filters: list[RowFilter], data: st.DataObject
) -> None:
    rows = OpenRows()
    masks = FilterMasks(rows)
    for number, of_row in enumerate(attributes):
        rows.append(Row(f"listing-{number}", 1, 0, of_row))
        for row_filter in data.draw(some(st.sampled_from(filters))):
            count = data.draw(st.integers(0, len(rows)))
            found = masks.mask(row_filter, count)
            expected = [passes(one, row_filter) for one in attributes[:count]]
            assert found.flags.tolist() == expected
            assert found.count == sum(expected)


def test_masks_are_right_while_another_thread_adds_rows_with_new_values() -> None:
    rows = OpenRows()
    masks = FilterMasks(rows)
    attributes = [RowAttributes(f"a/{number % 3}/{number}", f"b{number}") for number in range(2000)]
    row_filter = RowFilter(
        category_prefixes=("a/1",), brands=tuple(f"b{n}" for n in range(0, 2000, 7))
    )

    def add() -> None:
        for number, of_row in enumerate(attributes):
            rows.append(Row(f"listing-{number}", 1, 0, of_row))

    with ThreadPoolExecutor(1) as executor:
        adding = executor.submit(add)
        done = False
        while not done:
            done = adding.done()
            count = len(rows)
            expected = [passes(one, row_filter) for one in attributes[:count]]
            assert masks.mask(row_filter, count).flags.tolist() == expected
        adding.result()


@settings(deadline=None, max_examples=60)
@given(st.lists(ATTRIBUTES, max_size=12), FILTERS)
def test_a_choice_is_unknown_if_and_only_if_no_row_meets_it(
    attributes: list[RowAttributes], row_filter: RowFilter
) -> None:
    rows = OpenRows()
    for number, of_row in enumerate(attributes):
        rows.append(Row(f"listing-{number}", 1, 0, of_row))
    unknown = row_filter.unknown(rows.columns(len(rows)))
    categories, brands = {a.category for a in attributes}, {a.brand for a in attributes}
    assert list(unknown.category.strings) == [
        one for one in row_filter.categories if one not in categories
    ]
    assert list(unknown.category.prefixes) == [
        prefix
        for prefix in row_filter.category_prefixes
        if not any(is_under(category, prefix) for category in categories)
    ]
    assert list(unknown.brand.strings) == [one for one in row_filter.brands if one not in brands]


@pytest.mark.parametrize("time", [TimeRange(since=NO_TIME), TimeRange(until=2**63 - 1)])
def test_a_listing_without_a_time_is_within_no_bounds(time: TimeRange) -> None:
    rows = OpenRows()
    rows.append(Row("timeless", 1, 0, RowAttributes()))
    rows.append(Row("timely", 1, 0, RowAttributes(listed_at=5)))
    row_filter = RowFilter(listed=(time,))
    assert row_filter.mask(rows.columns(len(rows))).tolist() == [False, True]


@given(FILTERS)
def test_a_filter_restricts_unless_it_is_the_default(row_filter: RowFilter) -> None:
    assert row_filter.restricts == (row_filter != RowFilter())
