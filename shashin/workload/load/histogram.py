"""A histogram of durations with bounded memory and a bounded relative error. Pure.

Buckets grow by a constant factor, as in DDSketch (Masson, Rim and Lee, VLDB 2019). Unlike the package
``hdrhistogram`` it needs no C extension, and merging is the sum of two dictionaries.
"""

from __future__ import annotations

import math
from collections import Counter

RELATIVE_ERROR = 0.005
"""Of every percentile between ``MIN_SECONDS`` and ``MAX_SECONDS``."""

MIN_SECONDS = 1e-6
MAX_SECONDS = 86_400.0

_LOG_GROWTH = math.log((1 + RELATIVE_ERROR) / (1 - RELATIVE_ERROR))


class Histogram:
    """Durations in seconds, in at most 2,520 buckets; shorter ones than a microsecond count as one."""

    def __init__(self) -> None:
        self._buckets: Counter[int] = Counter()
        self.count = 0
        self.max = 0.0

    def add(self, seconds: float) -> None:
        """Count a duration."""
        clamped = min(max(seconds, MIN_SECONDS), MAX_SECONDS)
        self._buckets[math.ceil(math.log(clamped) / _LOG_GROWTH)] += 1
        self.count += 1
        self.max = max(self.max, seconds)

    def merge(self, other: Histogram) -> None:
        """Count all durations of another histogram."""
        self._buckets.update(other._buckets)
        self.count += other.count
        self.max = max(self.max, other.max)

    def percentile(self, share: float) -> float | None:
        """Return the smallest duration that ``share`` of all do not exceed; None if there are none."""
        if not self.count:
            return None
        left = max(1, math.ceil(share * self.count))
        for bucket in sorted(self._buckets):
            left -= self._buckets[bucket]
            if left <= 0:
                # The middle of a bucket in relative terms: equally far from both of its ends.
                return min(math.exp(bucket * _LOG_GROWTH) * (1 - RELATIVE_ERROR), self.max)
        raise AssertionError("unreachable: the buckets hold every duration")

    @property
    def buckets(self) -> int:
        """How many buckets it has."""
        return len(self._buckets)
