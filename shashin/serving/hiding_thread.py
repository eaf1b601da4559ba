"""Applies records of ``listings.hidden`` in a thread of its own, so that the event loop stays free.

The thread does one call after another, in the order in which they were made: entries are noted and
hidden in the order of the log, and a position is only said to be applied once all rows before it are
hidden. A call that has begun is finished, also when the task that waits for it is cancelled.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from shashin.kafka.records import InRecord
from shashin.offsets.log_position import LogPosition
from shashin.serving.hidden_listings import HiddenListings, LogBounds
from shashin.serving.hiding import Hiding
from shashin.serving.served_shards import ServedShards

RECORDS_AT_ONCE = 250
"""Records that are read and applied together: about a millisecond of the event loop, and a few of the
thread. More would be hardly faster per record, and delay a sale that comes after them."""

T = TypeVar("T")


class HidingThread:
    """Hides rows of the served shards, until it is closed.

    The default executor would not do: all of its threads may be busy for seconds with files of shards,
    and a sold listing would be found until one is free.
    """

    def __init__(self, served: ServedShards, hidden: HiddenListings, hiding: Hiding) -> None:
        self._served = served
        self._hidden = hidden
        self._hiding = hiding
        self._applied = LogPosition()
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="hiding")

    def close(self) -> None:
        """End the thread, once it has finished what it has begun."""
        # What entries are noted in may be closed next.
        self._executor.shutdown(wait=True)

    @property
    def applied(self) -> LogPosition:
        """The position before which everything is applied to all served shards.

        Masks that are read after it reflect everything before it.
        """
        return self._applied

    async def open_at(self, bounds: LogBounds) -> LogPosition:
        """Return the position to read from, and forget what was taken but is not applied yet.

        Raises:
            DiskUnavailable: when what is hidden cannot be stored.
        """
        return await self._call(lambda: self._open_at(bounds))

    async def apply(
        self, records: Sequence[InRecord], read: Mapping[int, int], *, delay_updates: bool
    ) -> None:
        """Take records, and apply all that is due by now.

        ``read`` has the offset of each partition up to which records were taken, these included;
        ``delay_updates`` is whether updates wait for searches that run (``Hiding.take``).

        Raises:
            DiskUnavailable: when what is hidden cannot be stored; ``open_at`` comes next.
        """
        await self._call(lambda: self._apply(records, read, delay_updates=delay_updates))

    async def _call(self, do: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, do)

    def _open_at(self, bounds: LogBounds) -> LogPosition:
        self._hiding.restart()
        self._applied = start = self._hidden.open_at(bounds)
        return start

    def _apply(
        self, records: Sequence[InRecord], read: Mapping[int, int], *, delay_updates: bool
    ) -> None:
        self._served.supersede_all(self._hiding.take(records, delay_updates=delay_updates))
        entries = self._hiding.due(at_most=RECORDS_AT_ONCE)
        reached = LogPosition(self._applied.topic_id, self._hiding.applied(read))
        if not entries and reached == self._applied:
            return
        try:
            # First what decides about rows still to come, and what shards that join are masked with.
            self._hidden.note(entries, reached)
        finally:
            # Also if it failed: what was written may be there once it is opened again, and is then not
            # read again.
            self._served.hide_all(entries)
        self._applied = reached
