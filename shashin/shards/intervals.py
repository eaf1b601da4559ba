"""Sets of whole numbers that consist of intervals, and which numbers of an array are in one. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

MIN, MAX = -(2**63), 2**63 - 1
"""Of int64, the type of what is looked for."""


@dataclass(frozen=True, eq=False)
class Intervals:
    """Intervals of int64 that neither overlap nor touch, ascending; both ends belong to them."""

    lows: npt.NDArray[np.int64]
    highs: npt.NDArray[np.int64]

    @classmethod
    def union(cls, bounds: Iterable[tuple[int, int]]) -> Intervals:
        """Return the numbers that are between any of these bounds, inclusive, within int64."""
        merged: list[tuple[int, int]] = []
        for low, high in sorted((max(low, MIN), min(high, MAX)) for low, high in bounds):
            if low > high:
                continue
            if merged and low <= merged[-1][1] + 1:
                merged[-1] = merged[-1][0], max(merged[-1][1], high)
            else:
                merged.append((low, high))
        lows, highs = zip(*merged, strict=True) if merged else ((), ())
        return cls(np.array(lows, dtype=np.int64), np.array(highs, dtype=np.int64))

    def contain(self, numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Return which of the numbers, (n,), are in an interval."""
        if not len(self.lows):
            return np.zeros(len(numbers), dtype=np.bool_)
        if len(self.lows) == 1:
            return _between(numbers, int(self.lows[0]), int(self.highs[0]))
        nearest = np.searchsorted(self.lows, numbers, side="right") - 1
        found: npt.NDArray[np.bool_] = (nearest >= 0) & (numbers <= self.highs[nearest])
        return found


def _between(numbers: npt.NDArray[np.int64], low: int, high: int) -> npt.NDArray[np.bool_]:
    if low == MIN:
        return numbers <= high
    found: npt.NDArray[np.bool_] = numbers >= low
    if high < MAX:
        found &= numbers <= high
    return found
