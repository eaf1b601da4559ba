"""What a process knows of ``listings.hidden`` beyond the rows that it has.

An indexer needs, for every row still to come, whether its listing is hidden: a store on disk
(services.indexer.hidden_store). An index server gets its rows with a snapshot of what is hidden, and
keeps only the latest records, for shards whose snapshot is a little older.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

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


class RecentlyHidden:
    """The latest entries, from a position that moves on as older ones are dropped."""

    def __init__(self, limit: int = RECENT_ENTRIES) -> None:
        self._limit = limit
        self._entries: deque[HiddenEntry] = deque()
        self._since: LogPosition | None = None
        self._position = LogPosition()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._entries)

    def known(self) -> tuple[LogPosition, list[HiddenEntry]] | None:
        """Return all entries from a position on, with the position; None before the log was reached.

        Some entries before the position may be among them.
        """
        with self._lock:
            return None if self._since is None else (self._since, list(self._entries))

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
        """Note entries, and drop the oldest beyond the limit."""
        with self._lock:
            assert self._since is not None, "open_at comes first"
            self._entries.extend(entries)
            self._position = position
            offsets = dict(self._since.offsets)
            while len(self._entries) > self._limit:
                dropped = self._entries.popleft()
                offsets[dropped.partition] = max(offsets[dropped.partition], dropped.offset + 1)
            self._since = LogPosition(self._since.topic_id, offsets)
