from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.router.queries import Part, Query, check_vector, validated
from shashin.errors import InvalidQuery, PhotoEmpty, PhotoTooLarge
from shashin.photo_box import Box
from shashin.v1 import index_pb2

LAMP = Part(listing_id="lamp")


def price(currency: str = "", low: int | None = None, high: int | None = None) -> Any:
    return index_pb2.PriceRange(currency=currency, min_minor=low, max_minor=high)


def test_defaults_are_filled_in() -> None:
    assert validated(Query(listing_id="lamp")).k == 10
    assert validated(Query(listing_id="lamp", k=1000)).k == 1000


@pytest.mark.parametrize(
    ("query", "named"),
    [
        (Query(), "nothing to search for"),
        (Query(photo=b"x", listing_id="lamp"), "photo and listing_id"),
        (Query(listing_id="lamp", k=1001), "k is 1001"),
        (Query(listing_id="lamp", k=-1), "k is -1"),
        (Query(listing_id="lamp", deadline_ms=60_001), "deadline_ms is 60001"),
        (Query(listing_id=""), "listing_id has 0 bytes"),
        (Query(listing_id="é" * 129), "listing_id has 258 bytes"),
        (Query(listing_id="lamp", parts=[Part(vector=b"")]), "listing_id and parts"),
        (Query(parts=[Part()]), r"parts\[0\] has nothing to search for"),
        (Query(parts=[Part(photo=b"x", vector=b"y")]), r"parts\[0\] has photo and vector"),
        (Query(parts=[LAMP] * 9), "parts has 9 entries"),
        (Query(parts=[LAMP, Part(listing_id="")]), r"parts\[1\].listing_id has 0 bytes"),
        (Query(parts=[Part(listing_id="lamp", weight=0)]), r"parts\[0\].weight is 0;"),
        (Query(parts=[Part(listing_id="lamp", weight=-10.5)]), r"parts\[0\].weight is -10.5"),
        (Query(parts=[Part(listing_id="lamp", weight=math.nan)]), r"parts\[0\].weight is nan"),
        (Query(parts=[Part(photo=b"x", crop=Box(0, 0, 2, 1))]), r"parts\[0\].crop.right is 2"),
        (Query(photo=b"x", crop=Box(0.5, 0, 0.5, 1)), "crop.left is 0.5 and right is 0.5"),
        (Query(photo=b"x", crop=Box(0, 0.6, 1, 0.5)), "crop.top is 0.6 and bottom is 0.5"),
        (Query(photo=b"x", crop=Box(math.nan, 0, 1, 1)), "crop.left is nan"),
        (Query(listing_id="lamp", crop=Box(0, 0, 1, 1)), "crop is given without a photo"),
        (Query(listing_id="lamp", min_score=1.5), "min_score is 1.5"),
        (Query(listing_id="lamp", min_score=math.nan), "min_score is nan"),
        (Query(listing_id="lamp", excluded_listing_ids=["a"] * 1001), "has 1001 ids"),
        (Query(listing_id="lamp", excluded_listing_ids=["a", ""]), r"ids\[1\] has 0 bytes"),
    ],
)
def test_an_invalid_query_is_rejected_with_its_field(query: Query, named: str) -> None:
    with pytest.raises(InvalidQuery, match=named):
        validated(query)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        (
            {"prices": [price("JPY", 5, 4)]},
            "filter.prices[0].min_minor is 5 and its max_minor is 4",
        ),
        ({"prices": [price("JPY"), price("EUR", -1)]}, "filter.prices[1].min_minor is -1"),
        ({"prices": [price("JPY", None, -1)]}, "filter.prices[0].max_minor is -1"),
        ({"prices": [price("", 5)]}, "filter.prices[0] has min_minor without a currency: set one"),
        ({"prices": [price("", 1, 2)]}, "has min_minor and max_minor without a currency"),
        ({"prices": [price("JPY"), price()]}, "filter.prices[1] is empty; expected a currency"),
        ({"prices": [price("YEN!")]}, "filter.prices[0].currency is 'YEN!'"),
        ({"prices": [price("円円円")]}, "filter.prices[0].currency"),
        ({"prices": [price("JPY")] * 101}, "filter.prices has 101 entries; expected at most 100"),
        (
            {"listed": [index_pb2.TimeRange(since=7, until=7)]},
            "filter.listed[0].since is 7 and its until is 7",
        ),
        (
            {"listed": [index_pb2.TimeRange(since=None, until=None)]},
            "filter.listed[0] is empty; expected since, until",
        ),
        ({"listed": [index_pb2.TimeRange(since=1, until=2)] * 101}, "filter.listed has 101"),
        ({"categories": ["c"] * 1001}, "filter.categories has 1001"),
        ({"categories": ["c", ""]}, "filter.categories[1] has 0 bytes; expected 1 to 256"),
        ({"categories": ["c" * 257]}, "filter.categories[0] has 257 bytes"),
        ({"brands": ["b"] * 1001}, "filter.brands has 1001"),
        ({"brands": [""]}, "filter.brands[0] has 0 bytes"),
        ({"category_prefixes": ["p"] * 1001}, "filter.category_prefixes has 1001"),
        ({"category_prefixes": [""]}, "filter.category_prefixes[0] has 0 bytes"),
        (
            {"category_prefixes": ["a", "/a"]},
            "filter.category_prefixes[1] is '/a'; expected a path",
        ),
        ({"category_prefixes": ["a/"]}, "filter.category_prefixes[0] is 'a/'"),
        ({"category_prefixes": ["a//b"]}, "filter.category_prefixes[0] is 'a//b'"),
        ({"category_prefixes": ["é" * 129]}, "filter.category_prefixes[0] has 258 bytes"),
    ],
)
def test_an_invalid_filter_is_rejected_with_its_field(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidQuery, match=re.escape(named)):
        validated(Query(listing_id="lamp", row_filter=index_pb2.Filter(**fields)))


def test_filters_at_their_bounds_are_accepted() -> None:
    row_filter = index_pb2.Filter(
        categories=["c" * 256] * 1000,
        category_prefixes=["a", "a/b", "é" * 128],
        prices=[price("JPY", 0, 0), price("EUR"), price("USD", None, 2**63 - 1)] * 33,
        listed=[
            index_pb2.TimeRange(since=-5, until=-4),
            index_pb2.TimeRange(since=None, until=0),
            index_pb2.TimeRange(since=0, until=None),
        ]
        * 33,
    )
    assert validated(Query(listing_id="lamp", row_filter=row_filter)).row_filter == row_filter


def test_empty_and_oversized_photos_are_rejected() -> None:
    with pytest.raises(PhotoEmpty):
        validated(Query(photo=b""))
    with pytest.raises(PhotoTooLarge, match="16777217 bytes"):
        validated(Query(photo=bytes(16 * 1024 * 1024 + 1)))


def test_what_is_searched_for_is_excluded_from_the_hits() -> None:
    assert Query(listing_id="a", excluded_listing_ids=["b"]).excluded == {"a", "b"}
    parts = [Part(listing_id="a"), Part(vector=b"v"), Part(listing_id="c", weight=-1)]
    assert Query(parts=parts).excluded == {"a", "c"}


@given(
    st.lists(
        st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=4, max_size=4
    ).filter(any)
)
def test_a_vector_of_any_length_but_zero_is_a_query(numbers: list[float]) -> None:
    check_vector("vector", np.array(numbers, dtype="<f4").tobytes(), 4)


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
        check_vector("vector", vector.astype("<f4").tobytes(), 4)
