"""Arrays in files of numpy's format, written and memory-mapped without trusting them."""

from __future__ import annotations

import mmap
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shashin.errors import CorruptShard

_MAGIC = b"\x93NUMPY\x01\x00"
_HEADER_BYTES = 128


def write_array(path: Path, array: npt.NDArray[Any]) -> None:
    """Write an array of one or two dimensions, little-endian and in C order.

    Raises:
        OSError: when the file cannot be written.
    """
    write_blocks(path, array.dtype, array.shape, [array])


def write_blocks(
    path: Path, dtype: np.dtype[Any], shape: tuple[int, ...], blocks: Iterable[npt.NDArray[Any]]
) -> None:
    """Write an array that comes in blocks of rows, as ``write_array`` does.

    Raises:
        OSError: when the file cannot be written.
    """
    with path.open("wb") as file:
        file.write(_header(dtype, shape))
        for block in blocks:
            file.write(block.data)


def map_array(
    path: Path,
    dtype: np.dtype[Any],
    columns: int | None,
    *,
    holds: str,
    expected: int | None = None,
) -> npt.NDArray[Any]:
    """Map a file of ``write_array``, (n, columns) or without columns (n,); errors say what it holds.

    ``expected`` is n, if that is known.

    The header is compared with the only valid one for a file of this size: numpy would parse it as
    a Python literal, and can raise any exception on invalid ones.

    Raises:
        CorruptShard: when the file is missing, was not written by ``write_array``, or has another n.
    """
    width = dtype.itemsize * (1 if columns is None else columns)
    try:
        with path.open("rb") as file:
            header = file.read(_HEADER_BYTES)
        size = path.stat().st_size
        rows = max(0, size - _HEADER_BYTES) // max(1, width)
        shape = (rows,) if columns is None else (rows, columns)
        if (size, header) != (_HEADER_BYTES + rows * width, _header(dtype, shape)):
            raise CorruptShard(
                f"{path} is not a complete file of {holds}: it has {size} bytes and starts with "
                f"{header!r}"
            )
        if expected is not None and rows != expected:
            raise CorruptShard(f"{path} has {rows} {holds}; expected {expected}")
        # A plain view: anything computed from a memmap would be a memmap too.
        return np.asarray(np.memmap(path, dtype, mode="r", offset=_HEADER_BYTES, shape=shape))
    except OSError as error:
        raise CorruptShard(f"{path} is not a file of {holds}: {error}") from error


def drop_pages(array: npt.NDArray[Any]) -> None:
    """Give the memory of a mapped array back to the system, which reads it again if it is used again."""
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base
    if isinstance(base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        base.madvise(mmap.MADV_DONTNEED)


def _header(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    """Return the file's header, in version 1.0 of numpy's format, 128 bytes long.

    Not written by numpy, so that the bytes do not depend on its version.
    """
    described = f"{{'descr': '{dtype.str}', 'fortran_order': False, 'shape': {shape}, }}"
    length = _HEADER_BYTES - len(_MAGIC) - 2
    return (
        _MAGIC + length.to_bytes(2, "little") + described.ljust(length - 1).encode("ascii") + b"\n"
    )
