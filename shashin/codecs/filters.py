"""Checks the filter of a search by the rules for events: what no event could have is an error."""

from __future__ import annotations

from shashin.codecs.listing_rules import currency_problem, price_problem, text_problem
from shashin.errors import InvalidQuery
from shashin.v1 import index_pb2

MAX_FILTER_CHOICES = 1000
"""Maximum categories, and maximum brands, in a filter."""


def check_filter(row_filter: index_pb2.Filter) -> None:
    """Check a filter.

    Raises:
        InvalidQuery: naming the field that no listing could match, or that has too many choices.
    """
    for name, choices in (
        ("filter.categories", row_filter.categories),
        ("filter.brands", row_filter.brands),
    ):
        if len(choices) > MAX_FILTER_CHOICES:
            raise InvalidQuery(
                f"{name} has {len(choices)} entries; expected at most {MAX_FILTER_CHOICES}"
            )
        for choice in choices:
            if problem := text_problem(choice):
                raise InvalidQuery(f"{name} has an entry of {problem}")
    for bound in ("min_price_minor", "max_price_minor"):
        price = getattr(row_filter, bound)
        if row_filter.HasField(bound) and (problem := price_problem(price)):
            raise InvalidQuery(f"filter.{bound} is {problem}")
    min_price, max_price = row_filter.min_price_minor, row_filter.max_price_minor
    both = row_filter.HasField("min_price_minor") and row_filter.HasField("max_price_minor")
    if both and min_price > max_price:
        raise InvalidQuery(
            f"filter.min_price_minor is {min_price} and filter.max_price_minor is {max_price}: the "
            "price range is empty"
        )
    if row_filter.currency and (problem := currency_problem(row_filter.currency)):
        raise InvalidQuery(f"filter.currency is {problem}, or no currency")
    since, until = row_filter.listed_from, row_filter.listed_to
    if row_filter.HasField("listed_from") and row_filter.HasField("listed_to") and since >= until:
        raise InvalidQuery(
            f"filter.listed_from is {since} and filter.listed_to is {until}: the end is exclusive, "
            "so the time range is empty"
        )
