"""Coverage of an answer, judged by remembered log positions even if no live tier responds. Pure.

Coverage is judged by two inputs: the positions that the endpoints of this answer report for the
snapshots that were searched, and the positions known *before* the calls were sent. Whatever an
earlier answer covered, this one must cover too, so a live tier that is down or replaying after a
restart cannot make a partial answer look complete. Positions learned during the calls do not
count: they may be newer than the snapshots that were searched.

Index servers and live tier take their snapshots at slightly different times. A shard that the live
tier releases between them would be in neither; this does not happen, because the indexer keeps
sealed rows for longer than the deadline of a search (SHASHIN_RELEASE_AFTER_SECONDS). If it did, the
answer would still report it: the range is in no ``held`` and hence missing.

The partitions are those of the topic, as live tiers count them: one that nobody indexes is unknown,
and then the answer is not complete.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from shashin.offsets.coverage import LiveReport, Position, StageLag, missing_ranges
from shashin.offsets.ranges import OffsetRange


@dataclass(frozen=True)
class AnswerCoverage:
    """The parts of the log that the endpoints of one answer did not search."""

    missing: tuple[OffsetRange, ...]
    unknown_partitions: tuple[int, ...]
    """Partitions that no live tier reported in this answer; their logs may have grown since."""
    partitions: int
    """Number of known partitions; with none, an answer is never complete."""
    stages: tuple[StageLag, ...] = ()
    """How far the stages before the live tier are behind."""
    end_unknown_seconds: float = 0.0
    """For how long a live tier could not read the end of the log; 0 for a short time."""

    @property
    def complete(self) -> bool:
        """Whether the log was searched from its horizon to the live position."""
        return self.partitions > 0 and not self.missing and not self.unknown_partitions

    @property
    def missing_offsets(self) -> int:
        """The number of missing offsets."""
        return sum(r.to_offset - r.from_offset for r in self.missing)


class KnownPositions:
    """The last known position of every partition reported so far.

    Live offsets only increase. If a topic is deleted and recreated, its offsets restart at 0, and
    the router and the indexers must be restarted.
    """

    def __init__(self) -> None:
        self._known: Mapping[int, Position] = MappingProxyType({})

    def snapshot(self) -> Mapping[int, Position]:
        """Return the current positions, as an immutable mapping."""
        return self._known

    def update(self, reported: Mapping[int, Position]) -> None:
        """Update with the positions reported in one answer."""
        known = self._known
        grown = {
            partition: Position(
                position.horizon_offset,
                max(position.live_offset, _live_offset(known, partition)),
            )
            for partition, position in reported.items()
        }
        if any(known.get(partition) != position for partition, position in grown.items()):
            self._known = MappingProxyType({**known, **grown})


def merge_reports(reports: Iterable[LiveReport]) -> LiveReport:
    """Return what several live tiers report together.

    The highest live offset and the lowest horizon count: while any of them requires an offset, an
    answer without it is incomplete. The largest lag counts as well; one that is unknown to some is
    what the others report.
    """
    positions: dict[int, Position] = {}
    stages: dict[str, StageLag] = {}
    partitions, end_unknown_seconds = 0, 0.0
    for report in reports:
        for partition, position in report.positions.items():
            other = positions.get(partition, position)
            positions[partition] = Position(
                min(position.horizon_offset, other.horizon_offset),
                max(position.live_offset, other.live_offset),
            )
        for lag in report.stages:
            known = stages.get(lag.stage, lag)
            records = [n for n in (lag.records, known.records) if n is not None]
            stages[lag.stage] = StageLag(
                lag.stage, max(records, default=None), max(lag.seconds, known.seconds)
            )
        partitions = max(partitions, report.partitions)
        end_unknown_seconds = max(end_unknown_seconds, report.end_unknown_seconds)
    return LiveReport(positions, partitions, end_unknown_seconds, tuple(stages.values()))


def answer_coverage(
    held: Iterable[OffsetRange],
    report: LiveReport,
    known_before: Mapping[int, Position],
) -> AnswerCoverage:
    """Return the coverage of an answer.

    ``held`` are the ranges that its endpoints searched, ``report`` what its live tiers reported
    together, and ``known_before`` the positions known before the calls were sent.
    """
    held, reported = list(held), report.positions
    expected = (
        known_before.keys()
        | reported.keys()
        | {r.partition for r in held}
        | set(range(report.partitions))
    )
    judged = {
        partition: Position(
            reported.get(partition, known_before.get(partition, _UNKNOWN)).horizon_offset,
            max(_live_offset(reported, partition), _live_offset(known_before, partition)),
        )
        for partition in known_before.keys() | reported.keys()
    }
    return AnswerCoverage(
        missing=missing_ranges(held, judged),
        unknown_partitions=tuple(sorted(expected - reported.keys())),
        partitions=len(expected),
        stages=report.stages,
        end_unknown_seconds=report.end_unknown_seconds,
    )


_UNKNOWN = Position(0, 0)


def _live_offset(positions: Mapping[int, Position], partition: int) -> int:
    return positions.get(partition, _UNKNOWN).live_offset
