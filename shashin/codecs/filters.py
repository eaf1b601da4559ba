"""Checks the filter of a search by the rules for events: what no event could have is an error."""

from __future__ import annotations

from collections.abc import Sequence

from shashin.codecs.listing_rules import (
    choice_problem,
    currency_problem,
    prefix_problem,
    price_problem,
)
from shashin.errors import InvalidQuery
from shashin.v1 import index_pb2

MAX_FILTER_CHOICES = 1000
"""Maximum categories, prefixes, and brands in a filter, each."""

MAX_FILTER_RANGES = 100
"""Maximum price ranges, and time ranges, in a filter."""


def check_filter(row_filter: index_pb2.Filter) -> None:
    """Check a filter.

    Raises:
        InvalidQuery: naming the entry that no listing could match, or the field with too many.
    """
    _check_choices("filter.categories", row_filter.categories)
    _check_choices("filter.category_prefixes", row_filter.category_prefixes)
    for number, prefix in enumerate(row_filter.category_prefixes):
        if problem := prefix_problem(prefix):
            raise InvalidQuery(f"filter.category_prefixes[{number}] is {problem}")
    _check_choices("filter.brands", row_filter.brands)
    _check_count("filter.prices", len(row_filter.prices), MAX_FILTER_RANGES)
    for number, price in enumerate(row_filter.prices):
        _check_price(f"filter.prices[{number}]", price)
    _check_count("filter.listed", len(row_filter.listed), MAX_FILTER_RANGES)
    for number, time in enumerate(row_filter.listed):
        _check_time(f"filter.listed[{number}]", time)


def _check_count(name: str, count: int, limit: int) -> None:
    if count > limit:
        raise InvalidQuery(f"{name} has {count} entries; expected at most {limit}")


def _check_choices(name: str, choices: Sequence[str]) -> None:
    _check_count(name, len(choices), MAX_FILTER_CHOICES)
    for number, choice in enumerate(choices):
        if problem := choice_problem(choice):
            raise InvalidQuery(f"{name}[{number}] has {problem}")


def _check_price(name: str, price: index_pb2.PriceRange) -> None:
    bounds = {}
    if price.HasField("min_minor"):
        bounds["min_minor"] = price.min_minor
    if price.HasField("max_minor"):
        bounds["max_minor"] = price.max_minor
    if not bounds and not price.currency:
        raise InvalidQuery(f"{name} is empty; expected a currency, with bounds if there are any")
    if not price.currency:
        raise InvalidQuery(
            f"{name} has {' and '.join(bounds)} without a currency: set one, such as JPY, since "
            "amounts of different currencies cannot be compared"
        )
    if problem := currency_problem(price.currency):
        raise InvalidQuery(f"{name}.currency is {problem}")
    for bound, amount in bounds.items():
        if problem := price_problem(amount):
            raise InvalidQuery(f"{name}.{bound} is {problem}")
    if len(bounds) == 2 and price.min_minor > price.max_minor:
        raise InvalidQuery(
            f"{name}.min_minor is {price.min_minor} and its max_minor is {price.max_minor}: the range "
            "is empty"
        )


def _check_time(name: str, time: index_pb2.TimeRange) -> None:
    if not time.HasField("since") and not time.HasField("until"):
        raise InvalidQuery(f"{name} is empty; expected since, until, or both, in Unix seconds")
    if time.HasField("since") and time.HasField("until") and time.since >= time.until:
        raise InvalidQuery(
            f"{name}.since is {time.since} and its until is {time.until}: the end is exclusive, so the "
            "range is empty"
        )
