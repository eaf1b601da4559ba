"""Decides when records of ``listings.hidden`` are applied: sales at once, updates a little later.

The endpoints of one search are not searched at the same moment. If the old version of an updated
listing were hidden at once, a search could reach the live tier before it has the new version, and
an index server after it has lost the old one. So the old version stays visible for longer than a
search may take, and merging keeps the newest version that was found.
"""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping

from shashin.kafka.records import InRecord
from shashin.metrics import index as metrics
from shashin.runtime.logging import get_logger
from shashin.shards.visibility import HiddenEntry
from shashin.v1 import events_pb2

log = get_logger(__name__)


class Hiding:
    """Takes records in the order in which they are read, and says when each is due. No I/O."""

    def __init__(
        self, *, superseded_after_seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._after_seconds = superseded_after_seconds
        self._clock = clock
        self._now: list[HiddenEntry] = []
        self._later: dict[int, deque[tuple[float, HiddenEntry]]] = defaultdict(deque)
        """By partition, updates with the time when they are due, in the order of the log."""
        self._unreadable: dict[int, int] = {}
        """By partition, the first offset that could not be read."""

    def restart(self) -> None:
        """Forget everything: it is read again from the applied offsets."""
        self._now.clear()
        self._later.clear()
        self._unreadable.clear()

    def take(self, records: Iterable[InRecord], *, delay_updates: bool) -> list[HiddenEntry]:
        """Take records; returns the updates among them, if those are delayed.

        Before anything is searched they need no delay.
        """
        updates = []
        for record in records:
            parsed = entry_of(record)
            if parsed is None:
                continue
            entry, superseded = parsed
            if superseded and delay_updates:
                due_at = self._clock() + self._after_seconds
                self._later[entry.partition].append((due_at, entry))
                updates.append(entry)
            else:
                self._now.append(entry)
        return updates

    def hold(self, record: InRecord) -> None:
        """Hold the applied offset back at an unreadable record, so that each start reads it again.

        Another replica of the broker may have it whole.
        """
        first = first_offset(record)
        self._unreadable[record.partition] = min(
            first, self._unreadable.get(record.partition, first)
        )

    def due(self, at_most: int | None = None) -> list[HiddenEntry]:
        """Return what has to be applied now; each entry is returned once.

        That is all of what is not delayed, and of the updates so many that there are ``at_most``
        entries: the others stay due.
        """
        due, self._now = self._now, []
        now = self._clock()
        for waiting in self._later.values():
            while waiting and waiting[0][0] <= now and (at_most is None or len(due) < at_most):
                due.append(waiting.popleft()[1])
        return due

    def applied(self, read: Mapping[int, int]) -> dict[int, int]:
        """Return the offset of each partition before which nothing waits or was unreadable.

        ``read`` are the offsets up to which records were taken. Everything before the result was
        returned by ``due``, and some later records were as well.
        """
        offsets = dict(read)
        for first in (*self._now, *(waiting[0][1] for waiting in self._later.values() if waiting)):
            offsets[first.partition] = min(first.offset, offsets[first.partition])
        for partition, offset in self._unreadable.items():
            offsets[partition] = min(offset, offsets[partition])
        return offsets

    def seconds_until_due(self, at_most: float) -> float:
        """Return the seconds until the next update is due: a millisecond to ``at_most``."""
        next_due = min((waiting[0][0] for waiting in self._later.values() if waiting), default=None)
        if next_due is None:
            return at_most
        return min(at_most, max(0.001, next_due - self._clock()))


def first_offset(record: InRecord) -> int:
    """Return the offset of a record, or the first one of the batch that it stands for."""
    return record.offset if record.batch is None else record.batch.first_offset


def entry_of(record: InRecord) -> tuple[HiddenEntry, bool] | None:
    """Return what a record hides, and whether a newer version supersedes it.

    An invalid record is counted and skipped (None).
    """
    message = events_pb2.HiddenListing()
    try:
        message.ParseFromString(record.value)
    except Exception as error:  # noqa: BLE001
        metrics.BAD_HIDDEN_RECORDS.inc()
        log.warning("skipping an invalid HiddenListing", **record.log_fields, error=str(error))
        return None
    if not message.listing_id:
        metrics.BAD_HIDDEN_RECORDS.inc()
        log.warning("skipping a HiddenListing without an id", **record.log_fields)
        return None
    metrics.HIDDEN_RECORDS.inc()
    entry = HiddenEntry(message.listing_id, message.below_version, record.partition, record.offset)
    return entry, message.reason == events_pb2.HIDDEN_REASON_SUPERSEDED
