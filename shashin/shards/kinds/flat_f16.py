"""``flat-f16``: float16 vectors with brute-force search: exact, and fast enough for few rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from shashin.errors import UnknownFormat
from shashin.shards.format.index_spec import IndexSpec
from shashin.shards.kinds.exact_search import nearest_of, nothing
from shashin.shards.kinds.npy_file import drop_pages, map_array, write_array
from shashin.shards.kinds.protocol import Groups, Mask, Neighbours, Vectors

NAME = "flat-f16"
INDEX_FILE = "vectors.npy"
METRIC = "ip"
STORED_TYPE = "f16"
DTYPE = np.dtype("<f2")


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
        holds = f"float16 vectors of {spec.dimensions} dimensions"
        mapped = map_array(folder / INDEX_FILE, DTYPE, spec.dimensions, holds=holds)
        return FlatIndex(mapped, is_mapped=True)


class FlatIndex:
    """The vectors, growing or mapped. Lock-free: each reader works on one array reference."""

    model_files: Sequence[str] = ()

    def __init__(self, stored: npt.NDArray[np.float16], *, is_mapped: bool = False) -> None:
        self._stored = stored
        self._size = len(stored)
        self._is_mapped = is_mapped

    @property
    def spec(self) -> IndexSpec:
        """The index's description for the manifest."""
        return IndexSpec(NAME, METRIC, STORED_TYPE, self._stored.shape[1], {})

    @property
    def memory_bytes(self) -> int:
        """Bytes in memory."""
        return 0 if self._is_mapped else self._stored.nbytes

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
        write_array(folder / INDEX_FILE, self._stored[: self._size])
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

    def drop_vectors(self) -> None:
        """Give the memory of mapped vectors that were read back to the system."""
        drop_pages(self._stored)


KIND = FlatF16()
