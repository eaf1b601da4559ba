"""The options of ``shashin search`` that filter."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shashin.cli.search.filter_options import filter_from, price_range
from shashin.codecs.filters import check_filter
from shashin.errors import UserError
from shashin.v1 import index_pb2

NOTHING: dict[str, Any] = {
    "categories": None,
    "under": None,
    "brands": None,
    "prices": None,
    "listed_since": None,
    "listed_until": None,
}
AMOUNTS = st.none() | st.integers(0, 2**63 - 1)


def made(**options: Any) -> index_pb2.Filter:
    return filter_from(**{**NOTHING, **options})


def test_without_options_nothing_is_filtered() -> None:
    assert made() == index_pb2.Filter()


def test_each_option_is_its_field() -> None:
    found = made(
        categories=["toys", "books"],
        under=["fashion/shoes"],
        brands=["ACME"],
        prices=["jpy:1000..5000", "EUR"],
        listed_since="2026-07-30T12:00:00Z",
        listed_until="2026-07-30T12:00:00.5Z",
    )
    noon = int(datetime(2026, 7, 30, 12, tzinfo=UTC).timestamp())
    assert list(found.categories) == ["toys", "books"]
    assert list(found.category_prefixes) == ["fashion/shoes"]
    assert list(found.brands) == ["ACME"]
    assert list(found.prices) == [
        index_pb2.PriceRange(currency="JPY", min_minor=1000, max_minor=5000),
        index_pb2.PriceRange(currency="EUR"),
    ]
    assert [(time.since, time.until) for time in found.listed] == [(noon, noon + 1)]


@pytest.mark.parametrize("option", ["listed_since", "listed_until"])
def test_one_bound_of_the_time_is_enough(option: str) -> None:
    (time,) = made(**{option: "2h"}).listed
    assert time.HasField("since") == (option == "listed_since")
    assert time.HasField("until") == (option == "listed_until")


@given(st.text("abcXYZ", min_size=3, max_size=3), AMOUNTS, AMOUNTS)
def test_a_price_range_is_read_as_it_is_written_or_is_empty(
    currency: str, low: int | None, high: int | None
) -> None:
    text = f"{currency}:{'' if low is None else low}..{'' if high is None else high}"
    if low is not None and high is not None and low > high:
        with pytest.raises(UserError, match="is empty"):
            price_range(text)
        return
    assert price_range(text) == index_pb2.PriceRange(
        currency=currency.upper(), min_minor=low, max_minor=high
    )


@given(st.text(max_size=12) | st.from_regex(r"[A-Za-z]{2,4}:?[0-9]{0,21}\.\.?-?[0-9]{0,21}"))
def test_any_text_is_a_price_range_that_the_router_accepts_or_a_user_error(text: str) -> None:
    with contextlib.suppress(UserError):
        check_filter(index_pb2.Filter(prices=[price_range(text)]))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"prices": ["1000..5000"]}, "--price '1000..5000' is not a price range: expected a curr"),
        ({"prices": ["JPY:1000"]}, "--price 'JPY:1000' is not a price range"),
        ({"prices": ["JPY:-5..5"]}, "is not a price range"),
        ({"prices": ["JPY:..9223372036854775808"]}, "expected 0 to 9223372036854775807"),
        ({"prices": ["JPY:2..1"]}, "--price 'JPY:2..1' is empty: 2 is more than 1"),
        ({"under": ["/bags"]}, "--under is '/bags'; expected a path such as fashion/shoes"),
        ({"under": [""]}, "--under has 0 bytes; expected 1 to 256"),
        ({"categories": ["c" * 257]}, "--category has 257 bytes"),
        ({"brands": [""]}, "--brand has 0 bytes"),
        ({"listed_since": "soon"}, "'soon' is not a time: expected an age such as 30m"),
        (
            {"listed_since": "1h", "listed_until": "2h"},
            "--listed-since 1h is not before --listed-until 2h: no listing can match",
        ),
    ],
)
def test_what_no_listing_can_match_is_said_with_its_option(
    options: dict[str, Any], words: str
) -> None:
    with pytest.raises(UserError) as raised:
        made(**options)
    assert words in raised.value.message
