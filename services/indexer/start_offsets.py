"""Start offsets: derived from manifests and horizons, never from the consumer group."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from shashin.offsets.coverage import Position, missing_ranges
from shashin.offsets.ranges import OffsetRange, merge_ranges
from shashin.repository.horizons import Horizon


@dataclass(frozen=True)
class StartOffset:
    """The start offset of one partition."""

    horizon_offset: int
    """Offsets below this need not be covered."""
    from_offset: int
    """Start of the open range."""
    lost: tuple[OffsetRange, ...] = ()
    """Offsets above the horizon that no shard holds and the log has already deleted."""


def first_horizons(sealed: Iterable[OffsetRange], log_starts: Mapping[int, int]) -> dict[int, int]:
    """Return the horizon of each partition in ``log_starts``, for those that have none yet.

    It is where the first committed shard starts, or else where the log does.
    """
    firsts: dict[int, int] = {}
    for held in merge_ranges(sealed):
        firsts.setdefault(held.partition, held.from_offset)
    return {
        partition: firsts.get(partition, log_start) for partition, log_start in log_starts.items()
    }


def start_offsets(
    sealed: Iterable[OffsetRange], log_starts: Mapping[int, int], horizons: Mapping[int, Horizon]
) -> dict[int, StartOffset]:
    """Return the start offset of each partition in ``log_starts``.

    ``sealed`` are the source ranges of the committed shards, ``log_starts`` the log start offset
    and ``horizons`` the horizon of each partition. A partition is read from the end of the
    contiguous run of sealed ranges at its horizon: after a gap the log is read again, and cutting
    it again yields the existing shards. A gap that the log no longer holds is lost. Then the run
    that contains the log start offset counts, since a range that starts in its middle would
    overlap a sealed one.

    A second model is not read below its ``live_from``: what is missing there comes from builds, and
    is neither read nor lost.
    """
    merged = merge_ranges(sealed)
    found = {}
    for partition, log_start in log_starts.items():
        horizon = horizons[partition]
        first = horizon.reads_from
        runs = [run for run in merged if run.partition == partition]
        # A horizon in a gap: the gap is read as a whole, so that it is cut where it was before.
        ends = [run.to_offset for run in runs if run.from_offset <= first]
        end = max(ends[-1] if ends else first, horizon.live_from or 0)
        if end < log_start:
            holding = (run for run in runs if run.from_offset <= log_start < run.to_offset)
            end = next((run.to_offset for run in holding), log_start)
        lost = missing_ranges(runs, {partition: Position(first, log_start)})
        found[partition] = StartOffset(horizon.offset, end, lost)
    return found
