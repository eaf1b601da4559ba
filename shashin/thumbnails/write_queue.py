"""Which thumbnails wait to be written, and which need not be: a queue that is bounded in bytes. Pure."""

from __future__ import annotations

from collections import OrderedDict
from enum import StrEnum

from shashin.thumbnails.recent import RECENT_HASHES, RecentHashes


class Offer(StrEnum):
    """What became of a thumbnail that was offered."""

    TAKEN = "taken"
    """It waits to be written."""
    KNOWN = "known"
    """It is there, or is on its way already."""
    NO_ROOM = "no_room"
    """It is not written."""


class WriteQueue:
    """First in, first out; what is being written counts until it is ``done``."""

    def __init__(self, limit_bytes: int, *, remembered: int = RECENT_HASHES) -> None:
        self._limit = limit_bytes
        self._written = RecentHashes(remembered)
        self._waiting: OrderedDict[str, bytes] = OrderedDict()
        self._writing: dict[str, int] = {}
        """Hash to bytes."""
        self._bytes = 0

    @property
    def held_bytes(self) -> int:
        """Bytes of what waits or is being written."""
        return self._bytes

    @property
    def unwritten(self) -> int:
        """Number of thumbnails that wait or are being written."""
        return len(self._waiting) + len(self._writing)

    def offer(self, photo_hash: str, thumbnail: bytes) -> Offer:
        """Take a thumbnail, unless it is known or there is no room for it."""
        if (
            photo_hash in self._waiting
            or photo_hash in self._writing
            or photo_hash in self._written
        ):
            return Offer.KNOWN
        if self._bytes + len(thumbnail) > self._limit:
            return Offer.NO_ROOM
        self._waiting[photo_hash] = thumbnail
        self._bytes += len(thumbnail)
        return Offer.TAKEN

    def next(self) -> tuple[str, bytes] | None:
        """Return what has been waiting for longest, to be written now; None if nothing waits."""
        if not self._waiting:
            return None
        photo_hash, thumbnail = self._waiting.popitem(last=False)
        self._writing[photo_hash] = len(thumbnail)
        return photo_hash, thumbnail

    def done(self, photo_hash: str, *, written: bool) -> None:
        """Give back the room of one that was being written; it may be offered again unless it is ``written``."""
        self._bytes -= self._writing.pop(photo_hash)
        if written:
            self._written.add(photo_hash)
