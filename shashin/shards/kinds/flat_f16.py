"""``flat-f16``: float16 vectors with brute-force search: exact, and fast enough for few rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from shashin.errors import CorruptShard, UnknownFormat
from shashin.shards.format.index_spec import IndexSpec
from shashin.shards.kinds.exact_search import nearest_of, nothing
from shashin.shards.kinds.protocol import Groups, Mask, Neighbours, Vectors

NAME = "flat-f16"
INDEX_FILE = "vectors.npy"
METRIC = "ip"
STORED_TYPE = "f16"
DTYPE = np.dtype("<f2")

_MAGIC = b"\x93NUMPY\x01\x00"
_HEADER_BYTES = 128


class FlatF16:
    """The kind; it has no parameters."""

    @property
    def name(self) -> str:
        """Its name in manifests."""
        return NAME

    def builder(self, dimensions: int) -> FlatIndex:
        """Return an empty index."""
        return FlatIndex(np.zeros((0, dimensions), dtype=DTYPE))

    growing = builder

    def open(self, spec: IndexSpec, folder: Path) -> FlatIndex:
        """Map written vectors into memory, read-only."""
        if (spec.metric, spec.stored_type, dict(spec.parameters)) != (METRIC, STORED_TYPE, {}):
            raise UnknownFormat(
                f"the index in {folder} is of kind {spec} with parameters {dict(spec.parameters)}; "
                f"this version reads {NAME} {METRIC} {STORED_TYPE} without parameters: upgrade the "
                "reader or rebuild the shard"
            )
        return FlatIndex(_mapped(folder / INDEX_FILE, spec.dimensions))


class FlatIndex:
    """The vectors, growing or mapped. Lock-free: each reader works on one array reference."""

    def __init__(self, stored: npt.NDArray[np.float16]) -> None:
        self._mapped = isinstance(stored, np.memmap)
        # A plain view: anything computed from a memmap would be a memmap too.
        self._stored = np.asarray(stored)
        self._size = len(stored)

    @property
    def spec(self) -> IndexSpec:
        """The index's description for the manifest."""
        return IndexSpec(NAME, METRIC, STORED_TYPE, self._stored.shape[1], {})

    @property
    def memory_bytes(self) -> int:
        """Bytes in memory."""
        return 0 if self._mapped else self._stored.nbytes

    def __len__(self) -> int:
        return self._size

    def add(self, vectors: Vectors) -> None:
        """Append vectors (n, dimensions) under the next keys."""
        end = self._size + len(vectors)
        if end > len(self._stored):
            larger = np.zeros((max(1024, 2 * end), self._stored.shape[1]), dtype=DTYPE)
            larger[: self._size] = self._stored[: self._size]
            self._stored = larger
        self._stored[self._size : end] = vectors
        self._size = end

    def write(self, folder: Path) -> Sequence[str]:
        """Write ``vectors.npy``."""
        vectors = self._stored[: self._size]
        with (folder / INDEX_FILE).open("wb") as file:
            file.write(_header(*vectors.shape))
            file.write(vectors.data)
        return (INDEX_FILE,)

    def search(
        self, queries: Vectors, k: int, *, allowed: Mask | None, group: Groups, groups: int
    ) -> list[Neighbours]:
        """Return the nearest allowed row of each of up to ``k`` groups, for each query."""
        del groups
        keys = np.arange(len(group)) if allowed is None else np.flatnonzero(allowed)
        if len(keys) == 0:
            return [nothing()] * len(queries)
        return nearest_of(queries, k, self.vectors(keys), keys, group)

    def vectors(self, keys: npt.NDArray[np.int64]) -> Vectors:
        """Return the stored vectors of keys, (len(keys), dimensions) float32."""
        return self._stored[keys].astype(np.float32)


def _header(rows: int, dimensions: int) -> bytes:
    """Return the file's header, in version 1.0 of numpy's format, 128 bytes long.

    Not written by numpy, so that the bytes do not depend on its version.
    """
    described = f"{{'descr': '<f2', 'fortran_order': False, 'shape': ({rows}, {dimensions}), }}"
    length = _HEADER_BYTES - len(_MAGIC) - 2
    return (
        _MAGIC + length.to_bytes(2, "little") + described.ljust(length - 1).encode("ascii") + b"\n"
    )


def _mapped(path: Path, dimensions: int) -> npt.NDArray[np.float16]:
    """Map the vectors of a file, (n, dimensions).

    The header is compared with the only valid one for a file of this size: numpy would parse it as
    a Python literal, and can raise any exception on invalid ones.

    Raises:
        CorruptShard: when the file is missing or was not written by ``write``.
    """
    try:
        with path.open("rb") as file:
            header = file.read(_HEADER_BYTES)
        size = path.stat().st_size
        rows = max(0, size - _HEADER_BYTES) // (DTYPE.itemsize * max(1, dimensions))
        whole = _HEADER_BYTES + rows * DTYPE.itemsize * dimensions
        if (size, header) != (whole, _header(rows, dimensions)):
            raise CorruptShard(
                f"{path} is not a complete file of float16 vectors of {dimensions} dimensions: it "
                f"has {size} bytes and starts with {header!r}"
            )
        return np.memmap(path, DTYPE, mode="r", offset=_HEADER_BYTES, shape=(rows, dimensions))
    except OSError as error:
        raise CorruptShard(f"{path} is not a file of vectors: {error}") from error


KIND = FlatF16()
