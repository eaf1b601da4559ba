"""One partition of the live tier: adds rows to the open shard and cuts ranges."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from shashin.model_space import ModelSpace
from shashin.offsets.coverage import Position
from shashin.offsets.cut import CutReason, CutRules, OpenRange, cut_before, cut_when_idle
from shashin.shards.format.row import NewRow
from shashin.shards.kinds.protocol import GrowingKind
from shashin.shards.open_shard import OpenShard
from shashin.shards.visibility import Visibility


@dataclass(frozen=True)
class ParsedRecord:
    """A record of the log with the rows that it adds; none for a skipped record."""

    offset: int
    timestamp_ms: int
    """LogAppendTime."""
    rows: Sequence[NewRow] = ()
    event_ms: int | None = None
    """When the listing's event was appended to its log, if known."""


@dataclass(frozen=True)
class Add:
    """Add these records to the open shard."""

    records: Sequence[ParsedRecord]


@dataclass(frozen=True)
class Cut:
    """Close the open range after its last record and open the next one."""

    reason: CutReason


class PartitionState:
    """The open shard of one partition and its cut rules; depends on nothing but the log."""

    def __init__(
        self,
        partition: int,
        *,
        horizon_offset: int,
        from_offset: int,
        rules: CutRules,
        space: ModelSpace,
        kind: GrowingKind,
        hidden: Visibility,
    ) -> None:
        self.partition = partition
        self.horizon_offset = horizon_offset
        self._rules = rules
        self._space = space
        self._kind = kind
        self._hidden = hidden
        self.open = self._new_shard(from_offset)

    def _new_shard(self, from_offset: int) -> OpenShard:
        return OpenShard(self.partition, from_offset, self._space, self._kind, self._hidden)

    def position(self) -> Position:
        """Return the position of the partition that has to be covered."""
        return Position(self.horizon_offset, self.open.position)

    def steps(self, records: Sequence[ParsedRecord]) -> Iterator[Add | Cut]:
        """Yield the steps that apply the next records of the log, in order.

        Each step must be executed before the next is requested: a cut depends on the number of
        distinct rows in the shard at that point.
        """
        pending: list[ParsedRecord] = []
        for record in records:
            if pending and self._may_cut_before(record, pending):
                yield Add(pending)
                pending = []
            if not pending:
                open_range = OpenRange(self.open.bucket_start, self.open.rows)
                new = self._new_rows(record)
                reason = cut_before(open_range, record.timestamp_ms, new, self._rules)
                if reason is not None:
                    yield Cut(reason)
            pending.append(record)
        if pending:
            yield Add(pending)

    def _may_cut_before(self, record: ParsedRecord, pending: Sequence[ParsedRecord]) -> bool:
        """Whether a cut before the record is possible, so that pending records must be added first."""
        bucket = self.open.bucket_start
        if bucket is None:
            bucket = self._rules.bucket_start(pending[0].timestamp_ms)
        rows = self.open.rows + sum(len(p.rows) for p in pending)
        open_range = OpenRange(bucket, rows)
        return (
            cut_before(open_range, record.timestamp_ms, len(record.rows), self._rules) is not None
        )

    def _new_rows(self, record: ParsedRecord) -> int:
        return self.open.count_new([new.row for new in record.rows])

    def add(self, records: Sequence[ParsedRecord]) -> None:
        """Add records to the open shard; runs in the single writer thread."""
        self.open.add(
            [new for record in records for new in record.rows],
            position=records[-1].offset + 1,
            bucket_start=self._rules.bucket_start(records[0].timestamp_ms),
        )

    def cut(self) -> OpenShard:
        """Close the open range and open the next one; returns the shard to seal."""
        closed, read = self.open, self.open.position
        closed.end()
        self.open = self._new_shard(closed.position)
        self.open.read_up_to(read)
        return closed

    def idle_cut(self, high_watermark: int, checked_at_ms: int) -> Cut | None:
        """Return the cut if the partition is idle, or None."""
        reason = cut_when_idle(
            OpenRange(self.open.bucket_start, self.open.rows),
            self.open.position,
            high_watermark,
            checked_at_ms,
            self._rules,
        )
        return Cut(reason) if reason is not None else None
