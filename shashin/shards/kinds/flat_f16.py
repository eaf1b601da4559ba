"""``flat-f16``: every vector as float16, compared one by one: exact, and fast enough for few rows."""

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
    """Needs no parameters."""

    @property
    def name(self) -> str:
        """How manifests name it."""
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
                f"this version reads {NAME} {METRIC} {STORED_TYPE} without any: upgrade the "
                "reader or build the shard again"
            )
        return FlatIndex(_mapped(folder / INDEX_FILE, spec.dimensions))


class FlatIndex:
    """The vectors, growing or mapped. Readers take one array and keep it, so no lock is needed."""

    def __init__(self, stored: npt.NDArray[np.float16]) -> None:
        self._mapped = isinstance(stored, np.memmap)
        # A plain view of what is mapped: whatever is computed from a memmap would be one as well.
        self._stored = np.asarray(stored)
        self._size = len(stored)

    @property
    def spec(self) -> IndexSpec:
        """What the manifest is to say of the index."""
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
        """Return for each query the nearest allowed row of each of up to ``k`` groups."""
        del groups
        keys = np.arange(len(group)) if allowed is None else np.flatnonzero(allowed)
        if len(keys) == 0:
            return [nothing()] * len(queries)
        return nearest_of(queries, k, self.vectors(keys), keys, group)

    def vectors(self, keys: npt.NDArray[np.int64]) -> Vectors:
        """Return the stored vectors of keys, (len(keys), dimensions) float32."""
        return self._stored[keys].astype(np.float32)


def _header(rows: int, dimensions: int) -> bytes:
    """Return what comes before the vectors: a header of numpy's format 1.0, 128 bytes long.

    Written here and not by numpy, so that another version of it writes and reads the same bytes.
    """
    described = f"{{'descr': '<f2', 'fortran_order': False, 'shape': ({rows}, {dimensions}), }}"
    length = _HEADER_BYTES - len(_MAGIC) - 2
    return (
        _MAGIC + length.to_bytes(2, "little") + described.ljust(length - 1).encode("ascii") + b"\n"
    )


def _mapped(path: Path, dimensions: int) -> npt.NDArray[np.float16]:
    """Map the vectors of a file, (n, dimensions).

    A header is compared with the only right one for a file of this size: numpy would parse it as
    Python's literals, and what is none of them raises anything.

    Raises:
        CorruptShard: when it is missing, or is not what ``write`` left.
    """
    try:
        with path.open("rb") as file:
            header = file.read(_HEADER_BYTES)
        size = path.stat().st_size
        rows = max(0, size - _HEADER_BYTES) // (DTYPE.itemsize * max(1, dimensions))
        whole = _HEADER_BYTES + rows * DTYPE.itemsize * dimensions
        if (size, header) != (whole, _header(rows, dimensions)):
            raise CorruptShard(
                f"{path} is not a whole file of float16 vectors of {dimensions} dimensions: it has "
                f"{size} bytes and begins with {header!r}"
            )
        return np.memmap(path, DTYPE, mode="r", offset=_HEADER_BYTES, shape=(rows, dimensions))
    except OSError as error:
        raise CorruptShard(f"{path} is not a file of vectors: {error}") from error


KIND = FlatF16()
