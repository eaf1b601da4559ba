"""What a process knows of ``listings.hidden`` beyond the rows that it has.

An indexer needs, for every row still to come, whether its listing is hidden: a store on disk
(services.indexer.hidden_store). An index server gets its rows with a snapshot of what is hidden, and
keeps only the latest records, for shards whose snapshot is a little older.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from shashin.offsets.log_position import LogPosition
from shashin.shards.visibility import HiddenEntry

RECENT_ENTRIES = 100_000
"""About 25 MB: many minutes of sales, while a shard takes seconds from its seal to an index server."""


@dataclass(frozen=True)
class LogBounds:
    """What a topic has at one moment."""

    topic_id: str
    """Empty if the broker does not tell."""
    begins: Mapping[int, int]
    """The first offset of each partition that is retained."""
    ends: Mapping[int, int]
    """The offset of the next record of each partition."""


class HiddenListings(Protocol):
    """Knows listings that are hidden, up to a position in the log."""

    def __len__(self) -> int: ...

    def open_at(self, bounds: LogBounds) -> LogPosition:
        """Return the position to read from; called before the first read and after a failure."""
        ...

    def note(self, entries: Sequence[HiddenEntry], position: LogPosition) -> None:
        """Note entries; everything before the position has been noted then. It may block."""
        ...


@dataclass(frozen=True)
class KnownEntries:
    """Entries that a process remembers, as of one moment."""

    since: LogPosition
    """All entries from it on are among them, and some before it may be."""
    entries: Sequence[HiddenEntry]
    _partitions: npt.NDArray[np.int64]
    _offsets: npt.NDArray[np.int64]
    """Of the entries, (n,)."""

    def from_position(self, begin: LogPosition) -> list[HiddenEntry]:
        """Return the entries that are not before a position; takes nanoseconds for each other one."""
        begins = np.zeros(1 + int(self._partitions.max(initial=-1)), dtype=np.int64)
        for partition in range(len(begins)):
            begins[partition] = begin.offset(partition)
        wanted = np.flatnonzero(self._offsets >= begins[self._partitions])
        return [self.entries[number] for number in wanted.tolist()]


class RecentlyHidden:
    """The latest entries, from a position that moves on as older ones are dropped."""

    def __init__(self, limit: int = RECENT_ENTRIES) -> None:
        self._limit = limit
        self._entries: list[HiddenEntry] = []
        """A ring: once it is full, the next entry takes the place of the oldest."""
        self._next = 0
        """Where the next entry goes."""
        self._partitions = np.zeros(limit, dtype=np.int64)
        self._offsets = np.zeros(limit, dtype=np.int64)
        self._since: LogPosition | None = None
        self._position = LogPosition()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def reached(self) -> bool:
        """Whether the log was reached, so that it is known which entries are remembered."""
        return self._since is not None

    def known(self) -> KnownEntries:
        """Return what is remembered; the log has to be reached. It copies, in about a millisecond."""
        with self._lock:
            assert self._since is not None, "`reached` comes first"
            count = len(self._entries)
            return KnownEntries(
                self._since,
                self._entries.copy(),
                self._partitions[:count].copy(),
                self._offsets[:count].copy(),
            )

    def open_at(self, bounds: LogBounds) -> LogPosition:
        """Start at the end of the log at first, and later where the last read ended."""
        with self._lock:
            if self._since is None:
                self._since = self._position = LogPosition(bounds.topic_id, bounds.ends)
            else:
                # A partition that was added is read from its begin, so all its entries are known.
                added = {
                    p: begin for p, begin in bounds.begins.items() if p not in self._since.offsets
                }
                self._since = LogPosition(bounds.topic_id, {**self._since.offsets, **added})
                self._position = LogPosition(bounds.topic_id, {**self._position.offsets, **added})
            return self._position

    def note(self, entries: Sequence[HiddenEntry], position: LogPosition) -> None:
        """Note entries; beyond the limit, each takes the place of the oldest."""
        with self._lock:
            assert self._since is not None, "open_at comes first"
            self._position = position
            offsets = dict(self._since.offsets)
            for entry in entries:
                dropped = self._put(entry)
                if dropped is not None:
                    after = dropped.offset + 1
                    offsets[dropped.partition] = max(offsets[dropped.partition], after)
            self._since = LogPosition(self._since.topic_id, offsets)

    def _put(self, entry: HiddenEntry) -> HiddenEntry | None:
        """Remember an entry; returns the one that is dropped for it."""
        if self._limit == 0:
            return entry
        at, dropped = self._next, None
        if at == len(self._entries):
            self._entries.append(entry)
        else:
            dropped, self._entries[at] = self._entries[at], entry
        self._partitions[at], self._offsets[at] = entry.partition, entry.offset
        self._next = (at + 1) % self._limit
        return dropped
