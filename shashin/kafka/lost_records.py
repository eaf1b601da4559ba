"""Records that the log no longer has at a reader's position: found, named and counted."""

from __future__ import annotations

from typing import Literal

from prometheus_client import Counter

from shashin.errors import RecordsLost
from shashin.runtime.logging import get_logger

OnLostRecords = Literal["stop", "continue"]
"""What a reader does at such a gap: stop until an operator decides, or count it and go on."""

LOST = Counter(
    "shashin_lost_records",
    "Offsets that were deleted from a topic before they were read, and then given up.",
    ["topic"],
)

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
    LOST.labels(topic).inc(offsets)
    log.error("records lost: continuing", offsets=offsets, error=lost.message)
