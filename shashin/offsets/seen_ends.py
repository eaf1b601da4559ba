"""The end of one partition as it was seen over time. Pure: times are the caller's, in seconds."""

from __future__ import annotations

from bisect import bisect_right
from operator import itemgetter

_MAX_KEPT = 1024


class SeenEnds:
    """The times at which the end was first seen to be higher than before."""

    def __init__(self) -> None:
        self._seen: list[tuple[float, int]] = []

    @property
    def seen(self) -> bool:
        """Whether an end is known."""
        return bool(self._seen)

    def note(self, end: int, at: float) -> None:
        """Note the end as of a time, which must not precede an earlier one."""
        if self._seen and end <= self._seen[-1][1]:
            return
        self._seen.append((at, end))
        if len(self._seen) > _MAX_KEPT:
            # Coarser: what was passed by a forgotten end then counts from the next one on.
            del self._seen[1:-1:2]

    def as_of(self, at: float) -> int | None:
        """Return the highest end seen up to a time; None if there was none."""
        count = bisect_right(self._seen, at, key=itemgetter(0))
        return self._seen[count - 1][1] if count else None

    def passed_at(self, offset: int) -> float | None:
        """Return when the end was first seen past an offset; None if it never was."""
        first = bisect_right(self._seen, offset, key=itemgetter(1))
        return self._seen[first][0] if first < len(self._seen) else None

    def forget_before(self, at: float) -> None:
        """Forget what no ``as_of`` of this time or later needs."""
        count = bisect_right(self._seen, at, key=itemgetter(0))
        del self._seen[: max(0, count - 1)]

    def forget_through(self, offset: int) -> None:
        """Forget what no ``passed_at`` of this offset or a higher one needs."""
        del self._seen[: bisect_right(self._seen, offset, key=itemgetter(1))]
