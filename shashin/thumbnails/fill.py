"""Writes the thumbnails that the store lacks, from the log: what was dropped, or came before there was a store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from shashin.errors import RecordsLost
from shashin.kafka.log_reader import LogReader
from shashin.kafka.records import InRecord
from shashin.kafka.topics import IMAGES_DOWNLOADED
from shashin.photo_hash import hex_photo_hash, photo_hash
from shashin.thumbnails.recent import RecentHashes
from shashin.thumbnails.store import ThumbnailStore
from shashin.v1 import events_pb2

_WRITES_AT_ONCE = 16


@dataclass
class Filled:
    """How far it is."""

    offsets: int = 0
    """Offsets of the log that were passed."""
    all_offsets: int = 0
    """Offsets that the log had when it began."""
    unreadable: int = 0
    """Records that are no listing with thumbnails."""
    photos: int = 0
    """Different thumbnails that were found in the log; a repeat much later counts again."""
    written: int = 0
    existing: int = 0


async def fill(
    kafka: str,
    store: ThumbnailStore,
    *,
    client_id: str,
    on_progress: Callable[[Filled], object] = lambda _: None,
) -> Filled:
    """Write what is missing of the thumbnails in ``images.downloaded``, as far as it is retained.

    Doing it again changes nothing, so it continues after an error.

    Raises:
        KafkaUnavailable: when the broker does not respond.
        ObjectStoreError: when the store cannot be read or written.
    """
    filled = Filled()
    async with LogReader(kafka, IMAGES_DOWNLOADED, client_id=client_id) as reader:
        partitions = await reader.partitions()
        begins = await reader.begin_offsets(partitions)
        ends = await reader.end_offsets(partitions)
        filled.all_offsets = sum(ends[p] - begins[p] for p in partitions)
        seen, writing = RecentHashes(), _Writing(store, filled)
        at = dict(begins)
        try:
            async for record in retained(reader, at, ends):
                for name, thumbnail in _thumbnails(record, filled):
                    if name not in seen:
                        seen.add(name)
                        filled.photos += 1
                        await writing.add(name, thumbnail)
                filled.offsets = sum(at[p] - begins[p] for p in partitions)
                on_progress(filled)
            await writing.finish()
        finally:
            await writing.cancel()
    filled.offsets = filled.all_offsets
    on_progress(filled)
    return filled


async def retained(
    reader: LogReader, at: dict[int, int], ends: Mapping[int, int]
) -> AsyncIterator[InRecord]:
    """Yield the records up to ``ends``, moving ``at`` along; skips what is deleted meanwhile."""
    while True:
        try:
            async for record in reader.between(at.copy(), ends):
                at[record.partition] = record.offset + 1
                yield record
        except RecordsLost:
            begins = await reader.begin_offsets(list(at))
            at.update({p: min(max(at[p], begins[p]), ends[p]) for p in at})
        else:
            return


def _thumbnails(record: InRecord, filled: Filled) -> list[tuple[str, bytes]]:
    """Return the hash and thumbnail of each photo in a record."""
    listing = events_pb2.DownloadedListing()
    try:
        if record.problem:
            raise DecodeError(record.problem)
        listing.ParseFromString(record.value)
    except (DecodeError, UnicodeDecodeError):
        filled.unreadable += 1
        return []
    named = (
        (hex_photo_hash(photo_hash(photo.content_sha256)), photo.thumbnail)
        for photo in listing.photos
    )
    return [(name, thumbnail) for name, thumbnail in named if name and thumbnail]


class _Writing:
    """Writes several thumbnails at once; whoever adds one waits while there are enough."""

    def __init__(self, store: ThumbnailStore, filled: Filled) -> None:
        self._store = store
        self._filled = filled
        self._writes: set[asyncio.Future[None]] = set()

    async def add(self, name: str, thumbnail: bytes) -> None:
        """Begin to write one; raises the error of an earlier one."""
        while len(self._writes) >= _WRITES_AT_ONCE:
            await self._some()
        self._writes.add(asyncio.ensure_future(self._write(name, thumbnail)))

    async def finish(self) -> None:
        """Wait for all."""
        while self._writes:
            await self._some()

    async def cancel(self) -> None:
        """Cancel what is left."""
        for write in self._writes:
            write.cancel()
        await asyncio.gather(*self._writes, return_exceptions=True)

    async def _some(self) -> None:
        done, self._writes = await asyncio.wait(self._writes, return_when=asyncio.FIRST_COMPLETED)
        for write in done:
            await write

    async def _write(self, name: str, thumbnail: bytes) -> None:
        # Asking first costs less than sending a thumbnail that is there, and most are.
        if await self._store.has(name) or not await self._store.write(name, thumbnail):
            self._filled.existing += 1
        else:
            self._filled.written += 1
