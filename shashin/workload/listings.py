"""The demo's listings, rendered or from the user's own photos, and its unseen query photos."""

from __future__ import annotations

import asyncio
import io
import multiprocessing
import os
import signal
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from shashin.client.listing_events import ListingAttributes
from shashin.client.listing_sources import SourceListing, keep_photos, read_source
from shashin.rendering import require_rendering
from shashin.runtime.files import path_of_uri

_LISTINGS_AT_ONCE = 10
"""Listings rendered per task."""

_CROP = 0.12
"""Share cropped from each side of a published photo when no unseen one can be held back."""


@dataclass(frozen=True)
class DemoListing:
    """One listing of the demo, with its photo files."""

    listing_id: str
    photos: tuple[Path, ...]
    attributes: ListingAttributes
    query: Path | None
    """A photo that is never published; None for a listing without a query."""

    @property
    def photo_uris(self) -> list[str]:
        """The URIs of the photos, for an event."""
        return [photo.absolute().as_uri() for photo in self.photos]


async def render_listings(
    folder: Path,
    *,
    count: int,
    photos_each: int,
    queried: Collection[int],
    seed: int,
    progress: Callable[[int], None],
) -> list[DemoListing]:
    """Render the first ``count`` products of the catalogue in parallel processes.

    ``progress`` is called with the number of photos rendered so far.

    Raises:
        UserError: if the package that renders photos is not installed.
    """
    require_rendering()
    numbers = list(range(count))
    chunks = [numbers[i : i + _LISTINGS_AT_ONCE] for i in range(0, count, _LISTINGS_AT_ONCE)]
    loop = asyncio.get_running_loop()
    executor = ProcessPoolExecutor(
        max_workers=max(1, min(os.cpu_count() or 1, len(chunks))),
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_ignore_interrupts,
    )
    found: list[DemoListing] = []
    photos = 0
    try:
        tasks = [
            loop.run_in_executor(
                executor, _render, folder, chunk, photos_each, frozenset(queried), seed
            )
            for chunk in chunks
        ]
        for done in asyncio.as_completed(tasks):
            listings = await done
            found += listings
            photos += sum(len(li.photos) + (li.query is not None) for li in listings)
            progress(photos)
    finally:
        executor.shutdown(wait=False, cancel_futures=True)
    return sorted(found, key=lambda listing: listing.listing_id)


def _ignore_interrupts() -> None:
    # Ctrl-C reaches the whole process group; the parent shuts the workers down.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _render(
    folder: Path, numbers: Sequence[int], photos_each: int, queried: frozenset[int], seed: int
) -> list[DemoListing]:
    from shashin_catalogue import product, render_photo

    listings = []
    for number in numbers:
        shown = product(seed, number)
        listing_id = f"listing-{number:06d}"
        home = folder / listing_id
        home.mkdir(parents=True, exist_ok=True)
        paths = [home / f"{photo}.jpg" for photo in range(photos_each)]
        for photo, path in enumerate(paths):
            path.write_bytes(render_photo(shown, photo))
        query = None
        if number in queried:
            query = home / "unseen.jpg"
            query.write_bytes(render_photo(shown, photos_each))
        attributes = ListingAttributes(
            category=shown.category,
            brand=shown.brand,
            price_minor=shown.price_minor,
            currency=shown.currency,
        )
        listings.append(DemoListing(listing_id, tuple(paths), attributes, query))
    return listings


@dataclass(frozen=True)
class OwnListing:
    """One of the user's listings: the published photos, and the photo held back as a query."""

    source: SourceListing
    held_back: str | None
    """A photo that is not published; None if the query is a crop of the first photo."""


def own_listings(folder: Path, *, at_most: int) -> list[OwnListing]:
    """Return the user's listings; each one with several photos has one held back as a query.

    Raises:
        UserError: if the folder contains no photos, or a listing that cannot be published.
    """
    listings = []
    for source in read_source(folder).complete()[:at_most]:
        if len(source.photos) > 1 and "://" not in source.photos[-1]:
            kept = SourceListing(
                source.listing_id, source.photos[:-1], source.attributes, None, source.where
            )
            listings.append(OwnListing(kept, source.photos[-1]))
        else:
            listings.append(OwnListing(source, None))
    return listings


async def copy_listings(
    listings: Sequence[OwnListing],
    folder: Path,
    *,
    queried: Collection[int],
    progress: Callable[[int], None],
) -> list[DemoListing]:
    """Copy the user's photos to where the downloader can read them, and make the query photos."""
    found = []
    for number, own in enumerate(listings):
        found.append(await asyncio.to_thread(_copy, own, folder, number in queried))
        progress(sum(len(listing.photos) for listing in found))
    return found


def _copy(own: OwnListing, folder: Path, is_queried: bool) -> DemoListing:
    uris = keep_photos(own.source, folder / "own")
    photos = tuple(path_of_uri(uri) for uri in uris)
    query = None
    if is_queried:
        query = Path(own.held_back) if own.held_back else _cropped(photos[0], folder / "crops")
    return DemoListing(own.source.listing_id, photos, own.source.attributes, query)


def _cropped(photo: Path, folder: Path) -> Path | None:
    """Save a crop of a photo and return its path; None if the photo cannot be decoded."""
    from PIL import Image, ImageOps

    try:
        with Image.open(photo) as image:
            upright = ImageOps.exif_transpose(image).convert("RGB")
    except (OSError, ValueError, Image.DecompressionBombError):
        return None
    width, height = upright.size
    left, top = int(width * _CROP), int(height * _CROP)
    made = io.BytesIO()
    upright.crop((left, top, width - left, height - top)).save(made, "JPEG", quality=70)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{photo.stem}.jpg"
    path.write_bytes(made.getvalue())
    return path
