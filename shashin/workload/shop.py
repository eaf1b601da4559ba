"""What a shop does, event by event, for ever: it lists products, and sells some of them later. Pure.

The position alone decides what an event is, so a shop that is started again goes on where it was, and
an event that it repeats is the same one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

LISTINGS_PER_SALE = 4
_ROUND = LISTINGS_PER_SALE + 1
_ROUNDS_ON_SALE = 20
"""Rounds between a listing and its sale."""


@dataclass(frozen=True)
class ShopEvent:
    """One event of the shop."""

    kind: Literal["listed", "sold"]
    number: int
    """Of the listing, from 0."""

    @property
    def listing_id(self) -> str:
        """The listing's id."""
        return f"shop-{self.number:08d}"

    @property
    def version(self) -> int:
        """The listing's version: every listing is listed once, and sold once at most."""
        return 1 if self.kind == "listed" else 2


def shop_event(position: int) -> ShopEvent | None:
    """Return the event at a position, from 0; None for one at which nothing can be sold yet.

    Raises:
        ValueError: if the position is negative.
    """
    if position < 0:
        raise ValueError(f"position {position}; expected 0 or more")
    turn, place = divmod(position, _ROUND)
    if place < LISTINGS_PER_SALE:
        return ShopEvent("listed", turn * LISTINGS_PER_SALE + place)
    sold = turn - _ROUNDS_ON_SALE
    if sold < 0:
        return None
    # One of each four, and not always the same.
    return ShopEvent("sold", sold * LISTINGS_PER_SALE + sold % LISTINGS_PER_SALE)
