"""One validation of a listing's fields: a filter accepts what an event accepts, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from services.downloader.validation import parse_event
from services.router.queries import Query, validated
from shashin.codecs.filters import check_filter
from shashin.codecs.index import filter_of
from shashin.errors import InvalidEvent, InvalidQuery
from shashin.kafka.records import InRecord
from shashin.v1 import events_pb2, index_pb2

texts = st.text(max_size=3) | st.sampled_from(["x" * 256, "x" * 257, "ü" * 128, "ü" * 129])
currencies = st.text(max_size=4) | st.sampled_from(["JPY", "jpy", "Jpy", "EURO", "円円円"])


def event_accepts(**attributes: Any) -> bool:
    event = events_pb2.ListingEvent(
        listing_id="lamp", version=1, kind=events_pb2.LISTING_KIND_LISTED, photo_uris=["file:///a"]
    )
    event.attributes.MergeFrom(events_pb2.Attributes(**attributes))
    try:
        parse_event(InRecord("listings.events", 0, 0, 0, b"lamp", event.SerializeToString()))
    except InvalidEvent:
        return False
    return True


def filter_accepts(**conditions: Any) -> bool:
    """Whether the router, an endpoint and the command accept the filter; they have to agree."""
    message = index_pb2.Filter(**conditions)
    checks = (
        lambda: check_filter(message),
        lambda: filter_of(message),
        lambda: validated(Query(listing_id="lamp", row_filter=message)),
    )
    accepted = set()
    for check in checks:
        try:
            check()
            accepted.add(True)
        except InvalidQuery:
            accepted.add(False)
    (answer,) = accepted
    return answer


@given(currencies)
@example("jpy")
def test_a_filter_accepts_a_currency_if_and_only_if_an_event_does(currency: str) -> None:
    accepted = event_accepts(currency=currency) and currency != ""
    assert filter_accepts(prices=[index_pb2.PriceRange(currency=currency)]) == accepted


@given(texts)
def test_a_filter_accepts_a_category_and_a_brand_if_and_only_if_an_event_has_one(text: str) -> None:
    assert filter_accepts(categories=[text]) == (event_accepts(category=text) and text != "")
    assert filter_accepts(brands=["ACME", text]) == (event_accepts(brand=text) and text != "")


@given(st.text("a/", max_size=6) | texts)
def test_a_filter_accepts_a_prefix_if_and_only_if_it_is_a_path_that_a_category_can_have(
    prefix: str,
) -> None:
    accepted = event_accepts(category=prefix) and "" not in prefix.split("/")
    assert filter_accepts(category_prefixes=["fashion", prefix]) == accepted


@given(st.integers(-(2**63), 2**63 - 1))
def test_a_filter_accepts_a_price_bound_if_and_only_if_an_event_can_have_that_price(
    price: int,
) -> None:
    accepted = event_accepts(price_minor=price, currency="JPY")
    for bound in ("min_minor", "max_minor"):
        price_range = index_pb2.PriceRange(currency="JPY", **{bound: price})
        assert filter_accepts(prices=[price_range]) == accepted


@given(st.none() | st.integers(-3, 3), st.none() | st.integers(-3, 3))
def test_a_time_range_is_accepted_if_and_only_if_a_time_can_be_in_it(
    since: int | None, until: int | None
) -> None:
    times = range(-5, 5)
    inside = [t for t in times if (since is None or t >= since) and (until is None or t < until)]
    bounded = since is not None or until is not None
    assert filter_accepts(listed=[index_pb2.TimeRange(since=since, until=until)]) == (
        bounded and bool(inside)
    )


def test_a_currency_in_small_letters_is_refused_with_what_is_expected() -> None:
    with pytest.raises(
        InvalidQuery, match=r"filter\.prices\[0\]\.currency is 'jpy'; expected an ISO 4217 code"
    ):
        filter_of(index_pb2.Filter(prices=[index_pb2.PriceRange(currency="jpy")]))
