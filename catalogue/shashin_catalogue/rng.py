"""Seeded random numbers, reproducible on every machine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")


class Rng:
    """A random number generator seeded by a key."""

    def __init__(self, *key: int) -> None:
        self.generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence(key)))

    def uniform(self, low: float, high: float) -> float:
        """Return a uniform random number."""
        return float(self.generator.uniform(low, high))

    def normal(self, deviation: float) -> float:
        """Return a normal random number with mean 0, clipped to three standard deviations."""
        return float(np.clip(self.generator.normal(0.0, deviation), -3 * deviation, 3 * deviation))

    def integer(self, low: int, high: int) -> int:
        """Return a random integer from ``low`` to ``high``, both included."""
        return int(self.generator.integers(low, high + 1))

    def choice(self, choices: Sequence[T]) -> T:
        """Return a random element."""
        return choices[int(self.generator.integers(len(choices)))]

    def chance(self, probability: float) -> bool:
        """Return True with the given probability."""
        return float(self.generator.random()) < probability
