"""What a filter means, as a plain predicate over a row's attributes."""

from __future__ import annotations

from shashin.shards.format.row import NO_TIME, RowAttributes
from shashin.shards.row_filter import PriceRange, RowFilter, TimeRange


def is_under(category: str, prefix: str) -> bool:
    """Whether a category is that of a prefix, or below it."""
    return category == prefix or category.startswith(f"{prefix}/")


def has_price(a: RowAttributes, price: PriceRange) -> bool:
    """Whether a row has a price in a range."""
    return (
        a.currency == price.currency
        and (price.min_minor is None or a.price_minor >= price.min_minor)
        and (price.max_minor is None or a.price_minor <= price.max_minor)
    )


def was_listed(a: RowAttributes, time: TimeRange) -> bool:
    """Whether a row has a time in a range."""
    return (
        a.listed_at != NO_TIME
        and (time.since is None or a.listed_at >= time.since)
        and (time.until is None or a.listed_at < time.until)
    )


def passes(a: RowAttributes, f: RowFilter) -> bool:
    """Whether a row meets the conditions, as specified in index.proto."""
    in_category = a.category in f.categories or any(
        is_under(a.category, prefix) for prefix in f.category_prefixes
    )
    return (
        (not (f.categories or f.category_prefixes) or in_category)
        and (not f.brands or a.brand in f.brands)
        and (not f.prices or any(has_price(a, price) for price in f.prices))
        and (not f.listed or any(was_listed(a, time) for time in f.listed))
    )
