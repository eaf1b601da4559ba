"""The photos of ``shashin load``: rendered or the user's own, put where the downloader may read them."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable
from pathlib import Path

from shashin.client.listing_sources import SourceListing, keep_photos, read_source
from shashin.workload.listings import render_listings
from shashin.workload.load.stock import StockListing, read_photo, uploaded

_RENDERED = 40
"""Different listings; more of them share photos."""


async def rendered_stock(
    photos_to: str | None, folder: Path, *, seed: int, progress: Callable[[int], None]
) -> list[StockListing]:
    """Render listings with one published photo and one to search by.

    Raises:
        UserError: if the package that renders photos is not installed.
    """
    with tempfile.TemporaryDirectory() as scratch:
        rendered = await render_listings(
            Path(scratch),
            count=_RENDERED,
            photos_each=1,
            queried=range(_RENDERED),
            seed=seed,
            progress=progress,
        )
        stock = []
        for listing in rendered:
            source = SourceListing(
                listing.listing_id,
                tuple(map(str, listing.photos)),
                listing.attributes,
                None,
                listing.listing_id,
            )
            assert listing.query is not None
            query = await asyncio.to_thread(read_photo, listing.query)
            uris = await _put(source, photos_to, folder)
            stock.append(StockListing(uris, listing.attributes, query))
    return stock


async def own_stock(source: Path, photos_to: str | None, folder: Path) -> list[StockListing]:
    """Take the user's listings, each searched for by its last photo on this machine.

    Raises:
        UserError: if one of them cannot be published, or none has a file.
    """
    stock = []
    for listing in read_source(source).complete():
        own = [photo for photo in listing.photos if "://" not in photo]
        query = await asyncio.to_thread(read_photo, Path(own[-1])) if own else b""
        stock.append(
            StockListing(await _put(listing, photos_to, folder), listing.attributes, query)
        )
    return [one for one in stock if one.query]


async def _put(source: SourceListing, photos_to: str | None, folder: Path) -> tuple[str, ...]:
    if photos_to is None or "://" not in photos_to:
        place = folder if photos_to is None else Path(photos_to)
        return tuple(await asyncio.to_thread(lambda: list(keep_photos(source, place))))
    files = [Path(photo) for photo in source.photos if "://" not in photo]
    return tuple(await uploaded(files, photos_to))
