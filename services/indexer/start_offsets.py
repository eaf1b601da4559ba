"""Where a start reads the log from: decided from the manifests alone, never from the consumer group."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from shashin.offsets.coverage import Position, missing_ranges
from shashin.offsets.ranges import OffsetRange, merge_ranges


@dataclass(frozen=True)
class StartOffset:
    """Where one partition is read from."""

    horizon_offset: int
    """Offsets below need not be covered."""
    from_offset: int
    """The open range begins here."""
    lost: tuple[OffsetRange, ...] = ()
    """Offsets from the horizon on that no shard holds and that the log has already deleted."""


def start_offsets(
    sealed: Iterable[OffsetRange], log_begins: Mapping[int, int]
) -> dict[int, StartOffset]:
    """Return where each partition of ``log_begins`` is read from.

    ``sealed`` are the source ranges of the committed shards, ``log_begins`` the first offset that
    the log still holds of each partition. A partition is read from the end of its first unbroken
    run of sealed ranges: behind a hole the log is read again, and cutting it anew gives the
    shards that are there already. A hole that the log no longer holds is lost; then the run that
    the log begins in counts, since a range cut from its middle would overlap a sealed one.
    """
    merged = merge_ranges(sealed)
    found = {}
    for partition, log_begin in log_begins.items():
        runs = [run for run in merged if run.partition == partition]
        if not runs:
            found[partition] = StartOffset(log_begin, log_begin)
            continue
        horizon, end = runs[0].from_offset, runs[0].to_offset
        if end < log_begin:
            holding = (run for run in runs if run.from_offset <= log_begin < run.to_offset)
            end = next((run.to_offset for run in holding), log_begin)
        lost = missing_ranges(runs, {partition: Position(horizon, log_begin)})
        found[partition] = StartOffset(horizon, end, lost)
    return found
