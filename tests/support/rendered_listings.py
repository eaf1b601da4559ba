"""Listings of rendered products, each with published photos and one unseen photo."""

from __future__ import annotations

from dataclasses import dataclass

from shashin_catalogue import product, render_photo

from shashin.client.listing_events import ListingAttributes

SEED = 7


@dataclass(frozen=True)
class RenderedListing:
    """One listing of the catalogue."""

    listing_id: str
    photos: tuple[bytes, ...]
    """JPEGs, published."""
    unseen: bytes
    """Another photo of the same product, for searches."""
    attributes: ListingAttributes


def rendered(number: int, *, photos: int = 1) -> RenderedListing:
    """Return listing ``number``; every number is another product, and every second is in euros."""
    shown = product(SEED, number)
    return RenderedListing(
        listing_id=f"listing-{number:06d}",
        photos=tuple(render_photo(shown, photo) for photo in range(photos)),
        unseen=render_photo(shown, photos),
        attributes=ListingAttributes(
            category=shown.category,
            brand=shown.brand,
            price_minor=shown.price_minor,
            currency="EUR" if number % 2 else "JPY",
        ),
    )


def photo_of(number: int) -> bytes:
    """Return one photo of a product that no other test shows."""
    return render_photo(product(SEED, number), 0)
