"""Fetches the photos of rows again: from the cache of originals, else from their sources."""

from __future__ import annotations

import asyncio
import hashlib
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from shashin.builds.reindex.left_out import LeftOut, LeftOutPhoto
from shashin.builds.reindex.packs import Pack, read_pack
from shashin.builds.step import StepContext
from shashin.builds.steps.files import link_or_copy, read_hidden, read_manifests
from shashin.originals import OriginalsCache
from shashin.photo_hash import photo_hash
from shashin.photo_sources.fetching import FetchedPhoto, PhotoFetcher
from shashin.photo_sources.open import photo_fetcher
from shashin.photo_sources.settings import PhotoSettings
from shashin.runtime.failpoints import failpoint
from shashin.runtime.json_file import write_json
from shashin.runtime.settings import load_settings
from shashin.shards.format.manifest import ROWS_FILE
from shashin.shards.format.rows_file import SealedRows

PHOTOS = "photos"
"""Folder of a shard's packs of thumbnails, in the step's output and in the shared folder."""

_PACK_PHOTOS = 256
_PAUSES_SECONDS = (1.0, 4.0)
"""Before the second and the third request to a source that is not available."""


@dataclass
class Fetched:
    """What became of the photos so far."""

    photos: int
    """Of all shards."""
    done: int = 0
    changed: int = 0
    """Photos that are no longer those that were indexed: their sources have others at the URIs."""


async def fetch_photos(step: StepContext) -> None:
    """Write the thumbnails of the visible rows of all fetched shards, a pack for a few hundred.

    Packs of which no photo is missing are kept for later attempts. ``photos.json`` has the counts,
    ``left-out.jsonl`` every photo that cannot be had.

    Raises:
        StepFailed: when too many cannot be had.
        SettingsError: when a setting in the environment is invalid.
    """
    settings = load_settings(PhotoSettings)
    cache = settings.cache()
    shards = []
    for stored in read_manifests(step.out):
        folder = step.out / stored.manifest.shard_id
        visible = np.ones(stored.manifest.rows, dtype=np.bool_)
        visible[read_hidden(folder).rows] = False
        rows_hash = bytes.fromhex(stored.manifest.rows_sha256)
        shards.append((folder, rows_hash, np.flatnonzero(visible)))
    fetched = Fetched(sum(len(numbers) for _, _, numbers in shards))
    step.progress(0, fetched.photos, "photos")
    with LeftOut(step.out, total=fetched.photos) as left_out:
        # However long ago an original was cached: it is what was indexed.
        async with photo_fetcher(settings, cache, confirm_after_seconds=math.inf) as fetcher:
            for folder, rows_hash, numbers in shards:
                packing = _Packing(step, folder, rows_hash, fetcher, fetched, left_out)
                for start in range(0, len(numbers), _PACK_PHOTOS):
                    await packing.pack(start, numbers[start : start + _PACK_PHOTOS])
                    await _prune(cache)
    counts = {
        "photos": fetched.photos,
        "changed": fetched.changed,
        "left_out": left_out.count,
    }
    write_json(step.out / "photos.json", counts)
    if fetched.changed:
        step.log.warning("photos have changed under their uris", photos=fetched.changed)
    step.log.info("fetched", **counts)


async def _prune(cache: OriginalsCache | None) -> None:
    if cache is not None:
        await asyncio.to_thread(cache.prune_if_due)


class _Packing:
    """Fetches the photos of one shard."""

    def __init__(
        self,
        step: StepContext,
        folder: Path,
        rows_hash: bytes,
        fetcher: PhotoFetcher,
        fetched: Fetched,
        left_out: LeftOut,
    ) -> None:
        self._step = step
        self._folder = folder
        self._fetcher = fetcher
        self._fetched = fetched
        self._left_out = left_out
        self._rows = SealedRows(folder / ROWS_FILE)
        self._rows_hash = rows_hash
        (folder / PHOTOS).mkdir()

    async def pack(self, first: int, numbers: npt.NDArray[np.int64]) -> None:
        """Write the pack of some rows."""
        name = hashlib.sha256(self._rows_hash + numbers.astype("<i8").tobytes()).hexdigest()
        kept = self._step.work / PHOTOS / f"{name}.pack"
        path = self._folder / PHOTOS / f"{first:010d}.pack"
        pack = await asyncio.to_thread(read_pack, kept)
        if pack is None:
            pack = await self._made(numbers)
            complete = len(pack.header["rows"]) == len(numbers)
            await asyncio.to_thread(pack.write, kept if complete else path)
            failpoint("after-photos")
        if not path.exists():
            await asyncio.to_thread(link_or_copy, kept, path)
        self._fetched.changed += pack.header["changed"]
        self._fetched.done += len(numbers)
        self._step.progress(self._fetched.done, self._fetched.photos, "photos")

    async def _made(self, numbers: npt.NDArray[np.int64]) -> Pack:
        rows = [self._rows.row(int(number)) for number in numbers]
        photos = await asyncio.gather(*(self._photo(row.photo_uri) for row in rows))
        found: list[int] = []
        thumbnails: list[bytes] = []
        changed = 0
        for number, row, photo in zip(numbers, rows, photos, strict=True):
            if photo is None:
                reason = "its shard does not say where it is: it was sealed before shards did"
                self._left_out.add(LeftOutPhoto.of(row, reason))
            elif photo.error is not None:
                self._left_out.add(LeftOutPhoto.of(row, photo.error.message))
            else:
                found.append(int(number))
                thumbnails.append(photo.thumbnail)
                changed += row.photo_hash not in {0, photo_hash(photo.content_sha256)}
        return Pack(
            {"rows": found, "sizes": [len(t) for t in thumbnails], "changed": changed},
            b"".join(thumbnails),
        )

    async def _photo(self, uri: str) -> FetchedPhoto | None:
        if not uri:
            return None
        for pause in _PAUSES_SECONDS:
            photo = await self._fetcher.fetch(uri)
            if photo.error is None or not photo.error.retryable:
                return photo
            await asyncio.sleep(pause * random.uniform(0.5, 1.5))
        return await self._fetcher.fetch(uri)


def thumbnails_in(pack: Pack) -> Sequence[bytes]:
    """Return the thumbnails in a pack, in the order of its rows."""
    found, start = [], 0
    for size in pack.header["sizes"]:
        found.append(pack.body[start : start + size])
        start += size
    return found
