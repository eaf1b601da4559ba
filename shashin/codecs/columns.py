"""Columns of numbers in messages: little-endian arrays, as arrays of the standard library.

Most answers have a dozen hits, and a call of numpy takes as long as everything that is done with those. It is used
where there are many.
"""

from __future__ import annotations

import math
import sys
from array import array
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np

UINT32, UINT64, FLOAT32 = "I", "Q", "f"
"""What arrays call these types."""

_MANY = 4096


def unpacked(typecode: str, data: bytes) -> array[Any]:
    """Return the numbers of a column.

    Raises:
        ValueError: when it ends within one.
    """
    column = array(typecode, data)
    if sys.byteorder == "big":
        column.byteswap()
    return column


def packed(column: array[Any]) -> bytes:
    """Return the column of numbers."""
    if sys.byteorder == "big":
        column = column[:]
        column.byteswap()
    return column.tobytes()


def are_finite(numbers: array[float]) -> bool:
    """Whether all numbers of a column of float32 are finite."""
    if len(numbers) > _MANY:
        return bool(np.isfinite(np.frombuffer(numbers, np.float32)).all())
    # In float64, in which a sum of them does not overflow.
    return math.isfinite(sum(numbers))


def ends_of(lengths: array[int]) -> Sequence[int]:
    """Return where each of some texts begins that are stored one after another, with the end of the last.

    ``lengths`` is a column of uint32.
    """
    if len(lengths) > _MANY:
        ends = np.zeros(len(lengths) + 1, np.int64)
        np.cumsum(np.frombuffer(lengths, np.uint32), out=ends[1:])
        return array("q", ends.tobytes())
    return list(accumulate(lengths, initial=0))
