"""Where a bucket is cut: a function of the log alone, so that all replicas cut at the same offset.

A shard's range starts where the previous one of its partition ended. Its bucket is the one that
contains the LogAppendTime of its first record. The range ends after the last record before the
first of:

- the first record whose LogAppendTime is at or past the bucket's end (``TIME``);
- the record whose rows would exceed the row limit (``ROWS``);
- the high watermark, once the bucket's end plus a grace period has passed and the partition is idle
  (``IDLE``). Any later record is past the bucket's end, so for a replica that reads later, ``TIME``
  cuts at the same offset.

Offsets without a record, such as the markers of transactions, belong to the range that follows: how
many of them a replica has read when it cuts is not determined by the log.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class CutReason(StrEnum):
    """Why a range ended."""

    TIME = "time"
    ROWS = "rows"
    IDLE = "idle"


@dataclass(frozen=True)
class CutRules:
    """The rules that all indexers of an installation share."""

    bucket_seconds: int = 3600
    grace_seconds: float = 60.0
    """Maximum clock skew between a broker and an indexer."""
    row_limit: int = 500_000

    def bucket_start(self, timestamp_ms: int) -> int:
        """Return the start of the bucket that contains a LogAppendTime, in Unix seconds."""
        return timestamp_ms // 1000 // self.bucket_seconds * self.bucket_seconds

    def bucket_end_ms(self, bucket_start: int) -> int:
        """Return the end of a bucket, in Unix milliseconds."""
        return (bucket_start + self.bucket_seconds) * 1000


@dataclass(frozen=True)
class OpenRange:
    """The state of the range that is being filled."""

    bucket_start: int | None
    """Unix seconds; None while the range has no record."""
    rows: int


def cut_before(
    open_range: OpenRange, timestamp_ms: int, new_rows: int, rules: CutRules
) -> CutReason | None:
    """Return why the range ends before a record, or None if the record belongs to it.

    ``new_rows`` is the number of rows that the record would add. A record with more rows than the
    limit gets its own range.
    """
    if open_range.bucket_start is None:
        return None
    if timestamp_ms >= rules.bucket_end_ms(open_range.bucket_start):
        return CutReason.TIME
    if open_range.rows and open_range.rows + new_rows > rules.row_limit:
        return CutReason.ROWS
    return None


def cut_when_idle(
    open_range: OpenRange, position: int, high_watermark: int, asked_at_ms: int, rules: CutRules
) -> CutReason | None:
    """Return why the range ends before the high watermark, or None if it stays open.

    ``asked_at_ms`` is a time before the high watermark was requested, in Unix milliseconds: only
    if the grace period was over by then can no more records of the bucket arrive.
    """
    if open_range.bucket_start is None or position != high_watermark:
        return None
    deadline_ms = rules.bucket_end_ms(open_range.bucket_start) + rules.grace_seconds * 1000
    return CutReason.IDLE if asked_at_ms > deadline_ms else None
