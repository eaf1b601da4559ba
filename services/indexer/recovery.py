"""Where to go on after a start: decided from the manifests alone, never from the consumer group."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from shashin.index.coverage import OffsetRange


@dataclass(frozen=True)
class Start:
    """Where one partition goes on."""

    horizon_offset: int
    """Offsets below need not be covered."""
    from_offset: int
    """The open range begins here."""
    lost: OffsetRange | None = None
    """Offsets that no shard holds and that the log has already deleted."""


def starts(sealed: Iterable[OffsetRange], log_begins: Mapping[int, int]) -> dict[int, Start]:
    """Return where each partition of ``log_begins`` goes on.

    ``sealed`` are the source ranges of the committed shards, ``log_begins`` the first offset that
    the log still holds of each partition. A partition goes on at the end of its first unbroken
    run of sealed ranges: behind a hole the log is read again, and cutting it anew gives the
    shards that are there already.
    """
    runs: dict[int, tuple[int, int]] = {}
    for current in sorted(sealed):
        run = runs.get(current.partition)
        if run is None:
            runs[current.partition] = (current.from_offset, current.to_offset)
        elif current.from_offset <= run[1]:
            runs[current.partition] = (run[0], max(run[1], current.to_offset))
    found = {}
    for partition, log_begin in log_begins.items():
        if partition not in runs:
            found[partition] = Start(log_begin, log_begin)
            continue
        horizon, end = runs[partition]
        lost = OffsetRange(partition, end, log_begin) if log_begin > end else None
        found[partition] = Start(horizon, max(end, log_begin), lost)
    return found
