from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.router.queries import Query, check_vector, validated
from shashin.errors import InvalidQuery, PhotoEmpty, PhotoTooLarge
from shashin.v1 import index_pb2


def test_defaults_are_filled_in() -> None:
    assert validated(Query(listing_id="lamp")).k == 10
    assert validated(Query(listing_id="lamp", k=500)).k == 500


@pytest.mark.parametrize(
    ("query", "named"),
    [
        (Query(), "nothing to search for"),
        (Query(photo=b"x", listing_id="lamp"), "photo and listing_id"),
        (Query(listing_id="lamp", k=501), "k is 501"),
        (Query(listing_id="lamp", k=-1), "k is -1"),
        (Query(listing_id="lamp", deadline_ms=60_001), "deadline_ms is 60001"),
        (Query(listing_id=""), "listing_id has 0 bytes"),
        (Query(listing_id="é" * 129), "listing_id has 258 bytes"),
    ],
)
def test_an_invalid_query_is_rejected_with_its_field(query: Query, named: str) -> None:
    with pytest.raises(InvalidQuery, match=named):
        validated(query)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"min_price_minor": 5, "max_price_minor": 4}, "filter.min_price_minor is 5"),
        ({"min_price_minor": -1}, "filter.min_price_minor is -1"),
        ({"max_price_minor": -1}, "filter.max_price_minor is -1"),
        ({"listed_from": 7, "listed_to": 7}, "filter.listed_from is 7"),
        ({"currency": "YEN!"}, "filter.currency is 'YEN!'"),
        ({"currency": "円円円"}, "filter.currency"),
        ({"categories": ["c"] * 1001}, "filter.categories has 1001"),
        ({"brands": ["b"] * 1001}, "filter.brands has 1001"),
    ],
)
def test_an_invalid_filter_is_rejected_with_its_field(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidQuery, match=named):
        validated(Query(listing_id="lamp", row_filter=index_pb2.Filter(**fields)))


def test_filters_at_their_bounds_are_accepted() -> None:
    row_filter = index_pb2.Filter(
        min_price_minor=0, max_price_minor=0, listed_from=-5, listed_to=-4, currency="JPY"
    )
    assert validated(Query(listing_id="lamp", row_filter=row_filter)).row_filter == row_filter


def test_empty_and_oversized_photos_are_rejected() -> None:
    with pytest.raises(PhotoEmpty):
        validated(Query(photo=b""))
    with pytest.raises(PhotoTooLarge, match="16777217 bytes"):
        validated(Query(photo=bytes(16 * 1024 * 1024 + 1)))


@given(
    st.lists(
        st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=4, max_size=4
    ).filter(any)
)
def test_a_vector_of_any_length_but_zero_is_a_query(numbers: list[float]) -> None:
    check_vector(np.array(numbers, dtype="<f4").tobytes(), 4)


@pytest.mark.parametrize(
    ("vector", "named"),
    [
        (np.ones(3), "vector has 12 bytes"),
        (np.array([1, np.nan, 0, 0]), "not finite"),
        (np.array([1, np.inf, 0, 0]), "not finite"),
        (np.zeros(4), "all zeros"),
    ],
)
def test_an_invalid_vector_is_rejected(vector: Any, named: str) -> None:
    with pytest.raises(InvalidQuery, match=named):
        check_vector(vector.astype("<f4").tobytes(), 4)
