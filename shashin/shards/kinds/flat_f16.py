"""``flat-f16``: every vector as float16, compared one by one: exact, and fast enough for few rows."""

from __future__ import annotations

import os
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


class FlatF16:
    """Needs no parameters."""

    @property
    def name(self) -> str:
        """How manifests name it."""
        return NAME

    def builder(self, dimensions: int) -> FlatIndex:
        """Return an empty index."""
        return FlatIndex(np.zeros((0, dimensions), dtype=np.float16))

    growing = builder

    def open(self, spec: IndexSpec, folder: Path) -> FlatIndex:
        """Map written vectors into memory, read-only."""
        if (spec.metric, spec.stored_type, dict(spec.parameters)) != (METRIC, STORED_TYPE, {}):
            raise UnknownFormat(
                f"the index in {folder} is of kind {spec} with parameters {dict(spec.parameters)}; "
                f"this version reads {NAME} {METRIC} {STORED_TYPE} without any: upgrade the "
                "reader or build the shard again"
            )
        path = folder / INDEX_FILE
        try:
            # numpy maps no empty file, and no file of an empty shard has anything to map.
            stored = np.load(path, mmap_mode="r" if path.stat().st_size else None)
        except (OSError, ValueError, EOFError) as error:
            raise CorruptShard(f"{path} is not a file of vectors: {error}") from error
        if stored.ndim != 2 or stored.dtype != np.float16 or stored.shape[1] != spec.dimensions:
            raise CorruptShard(
                f"{path} is not an index of {spec.dimensions} dimensions (found {stored.dtype} "
                f"{stored.shape})"
            )
        return FlatIndex(stored)


class FlatIndex:
    """The vectors, growing or mapped. Readers take one array and keep it, so no lock is needed."""

    def __init__(self, stored: npt.NDArray[np.float16]) -> None:
        self._stored = stored
        self._size = len(stored)

    @property
    def spec(self) -> IndexSpec:
        """What the manifest is to say of the index."""
        return IndexSpec(NAME, METRIC, STORED_TYPE, self._stored.shape[1], {})

    @property
    def memory_bytes(self) -> int:
        """Bytes in memory."""
        return 0 if isinstance(self._stored, np.memmap) else self._stored.nbytes

    def __len__(self) -> int:
        return self._size

    def add(self, vectors: Vectors) -> None:
        """Append vectors (n, dimensions) under the next keys."""
        end = self._size + len(vectors)
        if end > len(self._stored):
            room = np.zeros((max(1024, 2 * end), self._stored.shape[1]), dtype=np.float16)
            room[: self._size] = self._stored[: self._size]
            self._stored = room
        self._stored[self._size : end] = vectors
        self._size = end

    def write(self, folder: Path) -> Sequence[str]:
        """Write ``vectors.npy``."""
        with (folder / INDEX_FILE).open("wb") as file:
            np.save(file, self._stored[: self._size])
            file.flush()
            os.fsync(file.fileno())
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


KIND = FlatF16()
