"""Records that the log no longer has at a reader's position: found, named and counted."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Literal

from shashin.errors import RecordsLost
from shashin.metrics import kafka as metrics
from shashin.runtime.logging import get_logger
from shashin.runtime.scope import LoopScope

OnLostRecords = Literal["stop", "continue"]
"""What a reader does at such a gap: stop until an operator decides, or count it and go on."""

log = get_logger(__name__)


def lost_below(topic: str, partition: int, position: int, begin: int, end: int) -> RecordsLost:
    """Return the error for a position outside of what the log has, ``begin`` up to ``end``."""
    if position > end:
        return RecordsLost(
            f"the position in {topic}[{partition}] is offset {position}, but the log ends at {end}: "
            "the topic was probably deleted and created again. To read it from its beginning, "
            f"offset {begin}, restart with SHASHIN_ON_LOST_RECORDS=continue"
        )
    return RecordsLost(
        f"offsets {position} to {begin - 1} of {topic}[{partition}] were deleted before they were "
        f"read ({begin - position} offsets): the topic's retention is shorter than this reader's "
        "delay. Reading is stopped. Publish what they contained again, or reset an earlier stage's "
        f"group; then restart with SHASHIN_ON_LOST_RECORDS=continue to go on at offset {begin}"
    )


def note_lost(lost: RecordsLost, topic: str, offsets: int) -> None:
    """Count and log records that are given up."""
    metrics.LOST.labels(topic).inc(offsets)
    log.error("records lost: continuing", offsets=offsets, error=lost.message)


class UnknownPositions:
    """Partitions that a group reads from the log's begin, though it may have been further once.

    A broker forgets the positions of a group without members (``offsets.retention.minutes``). Then
    nothing distinguishes it from a new one: whether it had read the records that were deleted cannot
    be known, so it is reported until the group has processed something.
    """

    def __init__(self, topic: str, loop: LoopScope) -> None:
        self._topic = topic
        self._loop = loop
        self._unknown: dict[int, int] = {}
        """Partition to the offset that it is read from."""

    def note(self, partition: int, begin: int) -> None:
        """Note that a partition is read from ``begin``, the first offset that the log has."""
        if not begin or partition in self._unknown:
            return
        self._unknown[partition] = begin
        metrics.UNKNOWN_POSITIONS.labels(self._topic).inc()
        why = (
            f"the group has no position, and the log begins at offset {begin}: the group is new, or "
            "Kafka forgot its position, and what was deleted since may not have been read; going on "
            f"at offset {begin}"
        )
        self._loop.degraded(self._part(partition), why)
        log.warning("unknown position", topic=self._topic, partition=partition, why=why)

    def committed(self, positions: Mapping[int, int]) -> None:
        """Note the group's positions: one that has processed something is known again."""
        for partition, begin in list(self._unknown.items()):
            if positions.get(partition, begin) > begin:
                self._clear(partition)

    def keep(self, partitions: Collection[int]) -> None:
        """Forget all but these partitions, which are assigned."""
        for partition in self._unknown.keys() - set(partitions):
            self._clear(partition)

    def _clear(self, partition: int) -> None:
        del self._unknown[partition]
        self._loop.clear(self._part(partition))

    def _part(self, partition: int) -> str:
        return f"position in {self._topic}[{partition}]"
