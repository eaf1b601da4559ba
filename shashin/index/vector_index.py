"""The one Protocol that hides a shard's index kind, and its USearch HNSW adapter."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
from usearch.index import Index

from shashin.errors import CorruptShard

Vectors = npt.NDArray[np.float32]
"""Row-major (n, dimensions) float32, unit length."""

INDEX_KIND = "usearch-hnsw"
STORED_TYPE = "bf16"
METRIC = "ip"


@dataclass(frozen=True)
class HnswParameters:
    """How an HNSW graph is built (Malkov and Yashunin 2016) and searched."""

    connectivity: int = 16
    """Edges of a node (M)."""
    expansion_add: int = 128
    """Candidates when adding (efConstruction)."""
    expansion_search: int = 64
    """Candidates when searching (ef)."""


class VectorIndex(Protocol):
    """Nearest neighbours by inner product over the vectors 0 .. n-1."""

    def __len__(self) -> int: ...

    def search(
        self, queries: Vectors, count: int
    ) -> list[tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]]:
        """Return for each query up to ``count`` keys and their scores, greatest score first."""
        ...

    def vectors(self, keys: npt.NDArray[np.int64]) -> Vectors:
        """Return the stored vectors of keys."""
        ...


class UsearchIndex:
    """USearch HNSW, bf16; adds keep the order of keys, so the same rows give the same bytes."""

    def __init__(self, dimensions: int, parameters: HnswParameters) -> None:
        self._dimensions = dimensions
        self._index = Index(
            ndim=dimensions,
            metric=METRIC,
            dtype=STORED_TYPE,
            connectivity=parameters.connectivity,
            expansion_add=parameters.expansion_add,
            expansion_search=parameters.expansion_search,
        )

    @classmethod
    def map(cls, path: Path, dimensions: int, parameters: HnswParameters) -> UsearchIndex:
        """Map a saved index into memory, read-only.

        Raises:
            CorruptShard: when the file is not a USearch index of these dimensions.
        """
        mapped = cls(dimensions, parameters)
        try:
            metadata = Index.metadata(str(path))
            if not metadata or metadata["dimensions"] != dimensions:
                raise CorruptShard(
                    f"{path} is not an index of {dimensions} dimensions (found {metadata})"
                )
            mapped._index.view(str(path))
        except (RuntimeError, ValueError) as error:
            raise CorruptShard(f"{path} is not a USearch index: {error}") from error
        return mapped

    def __len__(self) -> int:
        return len(self._index)

    def add(self, first_key: int, vectors: Vectors) -> None:
        """Add vectors (n, dimensions) under the keys first_key, first_key + 1, …; one thread only."""
        keys = np.arange(first_key, first_key + len(vectors), dtype=np.uint64)
        self._index.add(keys, vectors, threads=1)

    def save(self, path: Path) -> None:
        """Write the index file.

        Raises:
            OSError: when it cannot be written.
        """
        try:
            self._index.save(str(path))
        except RuntimeError as error:  # what USearch says of a full disk
            raise OSError(f"USearch: {error}") from error

    def search(
        self, queries: Vectors, count: int
    ) -> list[tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]]:
        """Return for each query up to ``count`` keys and their scores, greatest score first."""
        count = min(count, len(self._index))
        if count == 0:
            empty = (np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32))
            return [empty for _ in queries]
        found = [self._index.search(query, count, threads=1) for query in queries]
        return [
            (matches.keys.astype(np.int64), (1.0 - matches.distances).astype(np.float32))
            for matches in found
        ]

    def vectors(self, keys: npt.NDArray[np.int64]) -> Vectors:
        """Return the stored vectors of keys, (len(keys), dimensions) float32."""
        if len(keys) == 0:
            return np.zeros((0, self._dimensions), dtype=np.float32)
        stored: Vectors = np.array(self._index.get(keys.astype(np.uint64)), dtype=np.float32)
        return stored
