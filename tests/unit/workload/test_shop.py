"""The shop's endless script: the position alone decides, and nothing is sold twice."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shashin.workload.shop import shop_event


@given(st.integers(0, 3000))
def test_a_listing_is_listed_once_and_sold_once_at_most_and_later(count: int) -> None:
    listed: list[int] = []
    sold: set[int] = set()
    for position in range(count):
        event = shop_event(position)
        if event is None:
            continue
        if event.kind == "listed":
            listed.append(event.number)
        else:
            assert event.number in listed
            assert event.number not in sold
            sold.add(event.number)
    assert listed == list(range(len(listed)))


def test_some_are_sold() -> None:
    events = [shop_event(position) for position in range(1000)]
    assert sum(event is not None and event.kind == "sold" for event in events) == 180


def test_a_sale_is_a_newer_version() -> None:
    events = [event for event in map(shop_event, range(500)) if event is not None]
    versions = {event.kind: event.version for event in events}
    assert versions["sold"] > versions["listed"]


def test_there_is_no_negative_position() -> None:
    with pytest.raises(ValueError, match="-1"):
        shop_event(-1)
