"""Numbers that one thread appends while others read."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


class GrowingArray:
    """A one-dimensional array whose capacity doubles when it is full.

    Readers see what was there when they took ``data``. Capacity that is not used yet takes no
    memory: the system provides pages when they are first written.
    """

    __slots__ = ("data",)

    def __init__(self, dtype: npt.DTypeLike, *, capacity: int = 1024) -> None:
        self.data: npt.NDArray[Any] = np.zeros(capacity, dtype=dtype)

    def put(self, position: int, value: int) -> None:
        """Set the number at a position, which is at most one past the last."""
        if position >= len(self.data):
            larger = np.zeros(2 * len(self.data), dtype=self.data.dtype)
            larger[: len(self.data)] = self.data
            self.data = larger
        self.data[position] = value
