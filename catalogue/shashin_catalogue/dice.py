"""Random choices that are the same for the same key, on every machine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")


class Dice:
    """A stream of choices that its key decides."""

    def __init__(self, *key: int) -> None:
        self.generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence(key)))

    def between(self, low: float, high: float) -> float:
        """Return a number between two."""
        return float(self.generator.uniform(low, high))

    def spread(self, deviation: float) -> float:
        """Return a number around 0, at most three deviations away."""
        return float(np.clip(self.generator.normal(0.0, deviation), -3 * deviation, 3 * deviation))

    def whole(self, low: int, high: int) -> int:
        """Return a whole number from ``low`` to ``high``, both included."""
        return int(self.generator.integers(low, high + 1))

    def one_of(self, choices: Sequence[T]) -> T:
        """Return one of the choices."""
        return choices[int(self.generator.integers(len(choices)))]

    def happens(self, share: float) -> bool:
        """Return True in a share of all cases."""
        return float(self.generator.random()) < share
