"""Filters against a plain predicate, on open rows and on the same rows sealed."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shashin.shards.format.open_rows import OpenRows
from shashin.shards.format.row import NO_TIME, Row, RowAttributes
from shashin.shards.format.rows_file import SealedRows, write_rows
from shashin.shards.row_filter import RowFilter

WORDS = ["", "shoes", "lamps", "ü"]
PRICES = st.sampled_from([0, 1, 99, 100, 2**63 - 1])
TIMES = st.sampled_from([NO_TIME, -5, 0, 100, 101, 2**62])

ATTRIBUTES = st.builds(
    RowAttributes,
    category=st.sampled_from(WORDS),
    brand=st.sampled_from(WORDS),
    price_minor=PRICES,
    currency=st.sampled_from(["", "JPY", "EUR"]),
    listed_at=TIMES,
)
FILTERS = st.builds(
    RowFilter,
    categories=st.lists(st.sampled_from([*WORDS, "unknown"]), max_size=2).map(tuple),
    brands=st.lists(st.sampled_from([*WORDS, "unknown"]), max_size=2).map(tuple),
    min_price_minor=st.none() | PRICES,
    max_price_minor=st.none() | PRICES,
    currency=st.sampled_from(["", "JPY", "USD"]),
    listed_from=st.none() | TIMES,
    listed_to=st.none() | TIMES,
)


def passes(a: RowAttributes, f: RowFilter) -> bool:
    """Whether a row meets the conditions, as specified in index.proto."""
    priced = f.min_price_minor is not None or f.max_price_minor is not None
    timed = f.listed_from is not None or f.listed_to is not None
    return (
        (not f.categories or a.category in f.categories)
        and (not f.brands or a.brand in f.brands)
        and (not f.currency or a.currency == f.currency)
        and not (priced and not a.currency)
        and (f.min_price_minor is None or a.price_minor >= f.min_price_minor)
        and (f.max_price_minor is None or a.price_minor <= f.max_price_minor)
        and not (timed and a.listed_at == NO_TIME)
        and (f.listed_from is None or a.listed_at >= f.listed_from)
        and (f.listed_to is None or a.listed_at < f.listed_to)
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


@pytest.mark.parametrize("bounds", [{"listed_from": NO_TIME}, {"listed_to": 2**63 - 1}])
def test_a_listing_without_a_time_is_within_no_bounds(bounds: dict[str, int]) -> None:
    rows = OpenRows()
    rows.append(Row("timeless", 1, 0, RowAttributes()))
    rows.append(Row("timely", 1, 0, RowAttributes(listed_at=5)))
    row_filter = RowFilter(**bounds)  # type: ignore[arg-type]
    assert row_filter.mask(rows.columns(len(rows))).tolist() == [False, True]


@given(FILTERS)
def test_a_filter_restricts_unless_it_is_the_default(row_filter: RowFilter) -> None:
    assert row_filter.restricts == (row_filter != RowFilter())


@pytest.mark.parametrize("bound", ["min_price_minor", "listed_from", "listed_to"])
def test_a_bound_of_zero_restricts(bound: str) -> None:
    assert RowFilter(**{bound: 0}).restricts  # type: ignore[arg-type]
