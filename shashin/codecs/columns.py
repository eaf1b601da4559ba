"""Columns of numbers in messages: little-endian arrays, as arrays of the standard library.

Most answers have a dozen hits, and a call of numpy takes as long as everything that is done with those.
"""

from __future__ import annotations

import sys
from array import array
from typing import Any

UINT32, UINT64, FLOAT32 = "I", "Q", "f"
"""What arrays call these types."""


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
