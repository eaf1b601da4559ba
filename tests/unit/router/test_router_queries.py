from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.router.queries import Query, checked, query_vector
from shashin.errors import InvalidQuery, PhotoEmpty, PhotoTooLarge
from shashin.v1 import index_pb2


def test_defaults_are_filled_in() -> None:
    assert checked(Query(listing_id="lamp")).k == 10
    assert checked(Query(listing_id="lamp", k=500)).k == 500


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
def test_an_invalid_query_is_rejected_naming_the_field(query: Query, named: str) -> None:
    with pytest.raises(InvalidQuery, match=named):
        checked(query)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"min_price_minor": 5, "max_price_minor": 4}, "filter.min_price_minor is 5"),
        ({"min_price_minor": -1}, "filter.min_price_minor is -1"),
        ({"max_price_minor": -1}, "filter.max_price_minor is -1"),
        ({"listed_from": 7, "listed_to": 7}, "filter.listed_from is 7"),
        ({"currency": "YEN!"}, "filter.currency is 'YEN!'"),
        ({"currency": "円円円"}, "filter.currency"),
        ({"categories": ["c"] * 1001}, "filter.categories names 1001"),
        ({"brands": ["b"] * 1001}, "filter.brands names 1001"),
    ],
)
def test_a_filter_that_nothing_can_match_is_refused_by_its_field(
    fields: dict[str, Any], named: str
) -> None:
    with pytest.raises(InvalidQuery, match=named):
        checked(Query(listing_id="lamp", row_filter=index_pb2.Filter(**fields)))


def test_filters_at_their_bounds_are_accepted() -> None:
    row_filter = index_pb2.Filter(
        min_price_minor=0, max_price_minor=0, listed_from=-5, listed_to=-4, currency="JPY"
    )
    assert checked(Query(listing_id="lamp", row_filter=row_filter)).row_filter == row_filter


def test_an_empty_and_a_huge_photo_are_refused_before_they_travel() -> None:
    with pytest.raises(PhotoEmpty):
        checked(Query(photo=b""))
    with pytest.raises(PhotoTooLarge, match="16777217 bytes"):
        checked(Query(photo=bytes(16 * 1024 * 1024 + 1)))


@given(
    st.lists(
        st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=4, max_size=4
    ).filter(any)
)
def test_any_vector_that_has_a_direction_gets_unit_length(numbers: list[float]) -> None:
    data = np.array(numbers, dtype="<f4").tobytes()
    vector = query_vector(data, 4)
    assert vector.shape == (1, 4)
    assert vector.dtype == np.float32
    assert np.linalg.norm(vector.astype(np.float64)) == pytest.approx(1.0, abs=1e-6)
    largest = np.argmax(np.abs(numbers))
    assert np.sign(vector[0, largest]) == np.sign(numbers[largest])


@pytest.mark.parametrize(
    ("vector", "named"),
    [
        (np.ones(3), "vector has 12 bytes"),
        (np.array([1, np.nan, 0, 0]), "not finite"),
        (np.array([1, np.inf, 0, 0]), "not finite"),
        (np.zeros(4), "all zeros"),
    ],
)
def test_a_vector_without_a_direction_is_refused(vector: Any, named: str) -> None:
    with pytest.raises(InvalidQuery, match=named):
        query_vector(vector.astype("<f4").tobytes(), 4)
