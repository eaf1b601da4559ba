"""The photos of ``shashin load``: rendered or the user's own, put where the downloader may read them."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from shashin.client.listing_sources import SourceListing, keep_photos, read_source
from shashin.workload.listings import render_listings
from shashin.workload.load.stock import StockListing, read_photo, uploaded

_RENDERED = 40
"""Different listings; more of them share photos."""


async def rendered_stock(
    photos_to: str | None, folder: Path, *, seed: int, progress: Callable[[str, int], None]
) -> list[StockListing]:
    """Render listings with one published photo and one to search by.

    ``progress`` is called with what is done and how many photos of it.

    Raises:
        UserError: if the package that renders photos is not installed.
        ObjectStoreUnavailable: if ``photos_to`` is an object store that does not respond.
    """
    with tempfile.TemporaryDirectory() as scratch:
        rendered = await render_listings(
            Path(scratch),
            count=_RENDERED,
            photos_each=1,
            queried=range(_RENDERED),
            seed=seed,
            progress=lambda done: progress("photos rendered", done),
        )
        sources, queries = [], []
        for listing in rendered:
            photos = tuple(map(str, listing.photos))
            sources.append(
                SourceListing(
                    listing.listing_id, photos, listing.attributes, None, listing.listing_id
                )
            )
            assert listing.query is not None
            queries.append(await asyncio.to_thread(read_photo, listing.query))
        return await _stock(sources, queries, photos_to, folder, progress)


async def own_stock(
    source: Path, photos_to: str | None, folder: Path, *, progress: Callable[[str, int], None]
) -> list[StockListing]:
    """Take the user's listings, each searched for by its last photo on this machine.

    Raises:
        UserError: if one of them cannot be published, or none has a file.
        ObjectStoreUnavailable: if ``photos_to`` is an object store that does not respond.
    """
    sources, queries = [], []
    for listing in read_source(source).complete():
        if own := _files(listing):
            sources.append(listing)
            queries.append(await asyncio.to_thread(read_photo, own[-1]))
    return await _stock(sources, queries, photos_to, folder, progress)


async def _stock(
    sources: Sequence[SourceListing],
    queries: Sequence[bytes],
    photos_to: str | None,
    folder: Path,
    progress: Callable[[str, int], None],
) -> list[StockListing]:
    """Put the photos of all listings where the downloader may read them."""
    if photos_to is None or "://" not in photos_to:
        place = folder if photos_to is None else Path(photos_to)
        uris = [await asyncio.to_thread(lambda s=s: tuple(keep_photos(s, place))) for s in sources]  # type: ignore[misc]
    else:
        files = [file for source in sources for file in _files(source)]
        stored = iter(
            await uploaded(files, photos_to, lambda done: progress("photos stored", done))
        )
        uris = [
            tuple(photo if "://" in photo else next(stored) for photo in source.photos)
            for source in sources
        ]
    return [
        StockListing(its, source.attributes, query)
        for its, source, query in zip(uris, sources, queries, strict=True)
    ]


def _files(source: SourceListing) -> list[Path]:
    return [Path(photo) for photo in source.photos if "://" not in photo]
