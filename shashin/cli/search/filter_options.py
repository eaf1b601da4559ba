"""The options of ``shashin search`` that filter, as the filter of a search. Pure but for the clock."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Sequence
from typing import Annotated

import typer

from shashin.cli.moments import parse_moment
from shashin.codecs.listing_rules import (
    choice_problem,
    prefix_problem,
    price_problem,
)
from shashin.errors import UserError
from shashin.v1 import index_pb2

CategoryOption = Annotated[
    list[str] | None, typer.Option(help="Only this category, as listings have it; can be repeated.")
]
UnderOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="PATH",
        help="Only this category and those below it: fashion/shoes is also fashion/shoes/sneakers; can "
        "be repeated, and combined with --category.",
    ),
]
BrandOption = Annotated[list[str] | None, typer.Option(help="Only this brand; can be repeated.")]
PriceOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="CURRENCY:MIN..MAX",
        help="Only prices in this range, in minor units (yen, cents): JPY:1000..5000, JPY:..5000, "
        "JPY:1000.. or JPY; can be repeated.",
    ),
]
SinceOption = Annotated[
    str | None,
    typer.Option(
        metavar="AGE|TIME",
        help="Only listings that went on sale since then: an age (30m, 2h, 7d) or an ISO time.",
    ),
]
UntilOption = Annotated[
    str | None,
    typer.Option(metavar="AGE|TIME", help="Only listings that went on sale before then."),
]

_PRICE = re.compile(
    r"(?P<currency>[A-Za-z]{3})(:(?P<min>\d{0,30})\.\.(?P<max>\d{0,30}))?", re.ASCII
)


def filter_from(
    *,
    categories: Sequence[str] | None,
    under: Sequence[str] | None,
    brands: Sequence[str] | None,
    prices: Sequence[str] | None,
    listed_since: str | None,
    listed_until: str | None,
) -> index_pb2.Filter:
    """Return the filter of the options.

    Raises:
        UserError: naming the option that no listing could match.
    """
    for prefix in under or ():
        if problem := prefix_problem(prefix):
            raise UserError(f"--under is {problem}")
    return index_pb2.Filter(
        categories=_checked("--category", categories),
        category_prefixes=_checked("--under", under),
        brands=_checked("--brand", brands),
        prices=map(price_range, prices or ()),
        listed=_listed(listed_since, listed_until),
    )


def price_range(text: str) -> index_pb2.PriceRange:
    """Return the range of a ``--price``.

    Raises:
        UserError: when it is none.
    """
    match = _PRICE.fullmatch(text)
    if match is None:
        raise UserError(
            f"--price {text!r} is not a price range: expected a currency with its minimum and maximum in "
            "minor units, such as JPY:1000..5000, JPY:..5000, JPY:1000.. or JPY"
        )
    low, high = (int(match[name]) if match[name] else None for name in ("min", "max"))
    for bound in (low, high):
        if bound is not None and (problem := price_problem(bound)):
            raise UserError(f"--price {text!r} has {problem}")
    if low is not None and high is not None and low > high:
        raise UserError(f"--price {text!r} is empty: {low} is more than {high}")
    return index_pb2.PriceRange(currency=match["currency"].upper(), min_minor=low, max_minor=high)


def _checked(option: str, texts: Iterable[str] | None) -> list[str]:
    checked = list(texts or ())
    for text in checked:
        if problem := choice_problem(text):
            raise UserError(f"{option} has {problem}")
    return checked


def _listed(since_text: str | None, until_text: str | None) -> list[index_pb2.TimeRange]:
    now_ms = time.time_ns() // 1_000_000
    # Times of listings are whole seconds: those before a moment are the ones before it rounded up.
    since, until = (
        None if text is None else -(-parse_moment(text, now_ms=now_ms) // 1000)
        for text in (since_text, until_text)
    )
    if since is None and until is None:
        return []
    if since is not None and until is not None and since >= until:
        raise UserError(
            f"--listed-since {since_text} is not before --listed-until {until_text}: no listing can "
            "match"
        )
    return [index_pb2.TimeRange(since=since, until=until)]
