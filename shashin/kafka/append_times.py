"""When the records at some positions were appended: those that wait for a stage from before it was watched.

From samples alone a process knows only since when it has itself seen a record wait. So the record at a
partition's position is read, one small fetch, now and then.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from shashin.errors import RecordsLost
from shashin.kafka.log_reader import LogReader

_READ_AGAIN_SECONDS = 10.0
"""Between fetches while positions move. Until the next one, a record is taken for older than it is."""

_FETCH_BYTES = 64 * 1024
"""A broker returns at least one batch, whatever its size."""

_READ_SECONDS = 1.0


class AppendTimes:
    """The append times of the records at a stage's positions."""

    def __init__(self, bootstrap: str, topic: str, *, client_id: str) -> None:
        self._open: Callable[[], LogReader] = lambda: LogReader(
            bootstrap, topic, client_id=client_id, fetch_bytes=_FETCH_BYTES
        )
        self._known: dict[int, tuple[int, float]] = {}
        """Partition to offset and Unix seconds."""
        self._next_read = 0.0

    def ages(self, positions: Mapping[int, int]) -> dict[int, float]:
        """Return the ages in seconds of the records at positions, of those that are known."""
        now = time.time()
        return {
            p: max(0.0, now - appended)
            for p, (offset, appended) in self._known.items()
            if p in positions and offset <= positions[p]
        }

    async def read(self, positions: Mapping[int, int]) -> None:
        """Read the records at positions, unless that was done a moment ago.

        Raises:
            KafkaUnavailable: when the broker does not respond.
        """
        self._known = {p: known for p, known in self._known.items() if p in positions}
        new = {p: at for p, at in positions.items() if self._known.get(p, (-1, 0.0))[0] != at}
        if not new or time.monotonic() < self._next_read:
            return
        self._next_read = time.monotonic() + _READ_AGAIN_SECONDS
        async with self._open() as reader:
            begins = await reader.begin_offsets(list(new))
            reader.start_at({p: max(at, begins[p]) for p, at in new.items()})
            deadline = time.monotonic() + _READ_SECONDS
            missing = set(new)
            while missing and (left := deadline - time.monotonic()) > 0:
                try:
                    batches = await reader.read(timeout_seconds=left, max_records=100)
                except RecordsLost:
                    return  # deleted meanwhile: the next read begins later
                for partition, records in batches.items():
                    if partition in missing:
                        missing.discard(partition)
                        # What cannot be decoded may have none.
                        if records[0].timestamp_ms > 0:
                            appended = records[0].timestamp_ms / 1000
                            self._known[partition] = (new[partition], appended)
