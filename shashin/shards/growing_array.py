"""Numbers that one thread appends while others read."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


class GrowingArray:
    """An array of numbers, or of rows of ``width`` numbers, whose capacity doubles when it is full.

    Readers see what was there when they took ``data``. Capacity that is not used yet takes no
    memory: the system provides pages when they are first written.
    """

    __slots__ = ("data",)

    def __init__(
        self, dtype: npt.DTypeLike, *, capacity: int = 1024, width: int | None = None
    ) -> None:
        shape = capacity if width is None else (capacity, width)
        self.data: npt.NDArray[Any] = np.zeros(shape, dtype=dtype)

    def put(self, position: int, value: int) -> None:
        """Set the number at a position, which is at most one past the last."""
        self._make_room(position + 1)
        self.data[position] = value

    def extend(self, position: int, values: npt.NDArray[Any]) -> None:
        """Set the numbers from a position on, which is at most one past the last."""
        self._make_room(position + len(values))
        self.data[position : position + len(values)] = values

    def _make_room(self, size: int) -> None:
        if size > len(self.data):
            capacity = max(size, 2 * len(self.data))
            larger = np.zeros((capacity, *self.data.shape[1:]), dtype=self.data.dtype)
            larger[: len(self.data)] = self.data
            self.data = larger


class GrowingStrings:
    """Strings as UTF-8 in one buffer, appended by one thread: the memory of their bytes and of an offset
    each, of type ``offsets``.
    """

    __slots__ = ("_bytes", "_ends", "_size")

    def __init__(self, offsets: npt.DTypeLike = np.int64) -> None:
        self._bytes = GrowingArray(np.uint8)
        self._ends = GrowingArray(offsets)
        """Where string i ends is at i + 1."""
        self._size = 0

    def append(self, value: str) -> None:
        """Add the next string."""
        encoded = np.frombuffer(value.encode(), dtype=np.uint8)
        start = int(self._ends.data[self._size])
        self._bytes.extend(start, encoded)
        self._ends.put(self._size + 1, start + len(encoded))
        self._size += 1

    def get(self, number: int) -> str:
        """Return one string."""
        return self.encoded(number).decode()

    def encoded(self, number: int) -> bytes:
        """Return one string in UTF-8, as it is kept."""
        start, end = self._ends.data[number], self._ends.data[number + 1]
        return bytes(self._bytes.data[start:end])

    def __len__(self) -> int:
        return self._size

    def buffers(self, count: int) -> tuple[npt.NDArray[Any], npt.NDArray[np.uint8]]:
        """Return where the first strings start, with the end of the last, and their bytes."""
        ends = self._ends.data[: count + 1]
        return ends, self._bytes.data[: ends[-1]]
