"""Remembered positions: how far the log goes, also while no live tier can say so. Pure.

Coverage of an answer is judged by two things. What an endpoint of this answer reports, because
its own snapshot was searched. And what was known *before* the calls were sent: whatever an earlier
answer could see, this one must see too, so a live tier that died, or that replays after a restart,
cannot make a short answer look complete. What is learnt while the calls are under way does not
count: it may lie behind the snapshots that were searched.

Index servers and live tier take their snapshots at slightly different moments. A shard that the
live tier released between them would be in neither; the indexer keeps released rows for longer than
the deadline of a search (SHASHIN_RELEASE_AFTER_SECONDS), so this does not happen. If it ever did,
no answer would hide it: its range is in nobody's ``held`` and comes out as missing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from shashin.offsets.coverage import Position, missing_ranges
from shashin.offsets.ranges import OffsetRange


@dataclass(frozen=True)
class AnswerCoverage:
    """What the endpoints of one answer did not search."""

    missing: tuple[OffsetRange, ...]
    unknown_partitions: tuple[int, ...]
    """Partitions that no live tier reported on in this answer: their log may be longer by now."""
    partitions: int
    """How many partitions were judged; with none, nothing is known and nothing complete."""

    @property
    def complete(self) -> bool:
        """Whether the log was searched from its horizon to the live position."""
        return self.partitions > 0 and not self.missing and not self.unknown_partitions

    @property
    def missing_offsets(self) -> int:
        """How many offsets are missing."""
        return sum(r.to_offset - r.from_offset for r in self.missing)


class KnownPositions:
    """The last known positions of every partition that was ever reported.

    Live offsets only grow. A topic that is deleted and recreated starts at 0 again: the router
    has to be restarted then, as have the indexers.
    """

    def __init__(self) -> None:
        self._known: Mapping[int, Position] = MappingProxyType({})

    def snapshot(self) -> Mapping[int, Position]:
        """Return what is known now; it does not change."""
        return self._known

    def learn(self, fresh: Mapping[int, Position]) -> None:
        """Remember the positions of one answer."""
        known = self._known
        grown = {
            partition: Position(
                position.horizon_offset,
                max(position.live_offset, _live_offset(known, partition)),
            )
            for partition, position in fresh.items()
        }
        if any(known.get(partition) != position for partition, position in grown.items()):
            self._known = MappingProxyType({**known, **grown})


def joined(reports: Iterable[tuple[int, Position]]) -> dict[int, Position]:
    """Return one position per partition of what several live tiers report.

    The farthest live offset counts, and the lowest horizon: as long as one of them says that an
    offset has to be covered, an answer without it is not complete.
    """
    fresh: dict[int, Position] = {}
    for partition, position in reports:
        other = fresh.get(partition)
        fresh[partition] = (
            position
            if other is None
            else Position(
                min(position.horizon_offset, other.horizon_offset),
                max(position.live_offset, other.live_offset),
            )
        )
    return fresh


def answer_coverage(
    held: Iterable[OffsetRange],
    fresh: Mapping[int, Position],
    known_before: Mapping[int, Position],
) -> AnswerCoverage:
    """Return what an answer did not search.

    ``held`` are the ranges that its endpoints searched, ``fresh`` the positions that they
    reported, and ``known_before`` the positions known before they were asked.
    """
    held = list(held)
    expected = known_before.keys() | fresh.keys() | {r.partition for r in held}
    judged = {
        partition: Position(
            fresh.get(partition, known_before.get(partition, _UNKNOWN)).horizon_offset,
            max(_live_offset(fresh, partition), _live_offset(known_before, partition)),
        )
        for partition in known_before.keys() | fresh.keys()
    }
    return AnswerCoverage(
        missing=missing_ranges(held, judged),
        unknown_partitions=tuple(sorted(expected - fresh.keys())),
        partitions=len(expected),
    )


_UNKNOWN = Position(0, 0)


def _live_offset(positions: Mapping[int, Position], partition: int) -> int:
    return positions.get(partition, _UNKNOWN).live_offset
