"""``usearch-hnsw``: a USearch HNSW graph with bfloat16 vectors.

This module works around USearch's limitations. Calls on one index share scratch memory, so
concurrent searches, or a search and an add, interfere: a lock is held around each call. Concurrent
adds leave nodes unreachable and make the bytes non-deterministic: only one thread adds, in key
order. The Python search has no filter: see ``masked_search``. A mapped index never changes.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
import numpy.typing as npt
from usearch.compiled import MetricKind, ScalarKind
from usearch.index import Index

from shashin.errors import CorruptShard, UnknownFormat
from shashin.shards.format.index_spec import IndexSpec
from shashin.shards.kinds.masked_search import search_allowed
from shashin.shards.kinds.protocol import Groups, Mask, Neighbours, Vectors

NAME = "usearch-hnsw"
INDEX_FILE = "index.usearch"
METRIC = "ip"
STORED_TYPE = "bf16"

_MAX_PARAMETER = 65_535
"""Upper bound, above any sensible value; far beyond it the library runs out of memory or overflows."""

_ADD_BATCH = 8
"""Vectors added per lock acquisition: about 2 ms, which a search may have to wait."""


@dataclass(frozen=True)
class UsearchHnsw:
    """The parameters for building (Malkov and Yashunin 2016) and searching the graph."""

    connectivity: int = 16
    """Edges per node (M)."""
    expansion_add: int = 128
    """Candidates when adding (efConstruction)."""
    expansion_search: int = 64
    """Candidates when searching (ef)."""

    @property
    def name(self) -> str:
        """Its name in manifests."""
        return NAME

    def builder(self, dimensions: int) -> UsearchIndex:
        """Return an empty index, which can also be searched while it grows."""
        return UsearchIndex(dimensions, self)

    growing = builder

    def open(self, spec: IndexSpec, folder: Path) -> UsearchIndex:
        """Map a written index into memory, read-only."""
        if (spec.metric, spec.stored_type) != (METRIC, STORED_TYPE):
            raise UnknownFormat(
                f"the index in {folder} is of kind {spec}; this version reads "
                f"{NAME} {METRIC} {STORED_TYPE}: upgrade the reader or rebuild the shard"
            )
        known = {parameter.name for parameter in fields(self)}
        invalid = {
            name: value
            for name, value in spec.parameters.items()
            if name not in known or not 1 <= value <= _MAX_PARAMETER
        }
        if invalid:
            raise UnknownFormat(
                f"the index in {folder} has index parameters that this version does not support: "
                f"{invalid}; expected {', '.join(sorted(known))}, from 1 to {_MAX_PARAMETER}"
            )
        path = folder / INDEX_FILE
        _check_metadata(path, spec.dimensions)
        opened = UsearchIndex(spec.dimensions, UsearchHnsw(**spec.parameters))
        opened.map(path)
        return opened


def _check_metadata(path: Path, dimensions: int) -> None:
    """Reject a file whose metadata does not match.

    The library lets the file's metric and type override the requested ones, and fails in various
    ways on an invalid vector length.

    Raises:
        CorruptShard: with the metadata found.
    """
    try:
        found = Index.metadata(str(path))
    except (RuntimeError, ValueError) as error:
        raise CorruptShard(f"{path} is not a USearch index: {error}") from error
    if not found or found["dimensions"] != dimensions:
        raise CorruptShard(f"{path} is not an index of {dimensions} dimensions (found {found})")
    if (found["kind_metric"], found["kind_scalar"]) != (MetricKind.IP, ScalarKind.BF16):
        raise CorruptShard(f"{path} is not an index of {METRIC} and {STORED_TYPE} (found {found})")


class UsearchIndex:
    """One graph, growing or mapped."""

    def __init__(self, dimensions: int, parameters: UsearchHnsw) -> None:
        self._dimensions = dimensions
        self._parameters = parameters
        self._lock = threading.Lock()
        self._index = Index(
            ndim=dimensions,
            metric=METRIC,
            dtype=STORED_TYPE,
            connectivity=parameters.connectivity,
            expansion_add=parameters.expansion_add,
            expansion_search=parameters.expansion_search,
        )
        self._size = 0
        """Vectors fully added: the library's count includes one that is still being added."""

    @property
    def spec(self) -> IndexSpec:
        """The index's description for the manifest."""
        return IndexSpec(NAME, METRIC, STORED_TYPE, self._dimensions, asdict(self._parameters))

    @property
    def memory_bytes(self) -> int:
        """Bytes in memory."""
        with self._lock:
            return int(self._index.memory_usage)

    def __len__(self) -> int:
        return self._size

    def map(self, path: Path) -> None:
        """Map the index in a file.

        Raises:
            CorruptShard: when the file is not a complete index.
        """
        try:
            self._index.view(str(path))
        except (RuntimeError, ValueError) as error:
            raise CorruptShard(f"{path} is not a USearch index: {error}") from error
        self._size = len(self._index)

    def add(self, vectors: Vectors) -> None:
        """Append vectors (n, dimensions) under the next keys."""
        for start in range(0, len(vectors), _ADD_BATCH):
            batch = vectors[start : start + _ADD_BATCH]
            keys = np.arange(self._size, self._size + len(batch), dtype=np.uint64)
            with self._lock:
                self._index.add(keys, batch, threads=1)
                self._size += len(batch)

    def write(self, folder: Path) -> Sequence[str]:
        """Write ``index.usearch``."""
        try:
            with self._lock:
                self._index.save(str(folder / INDEX_FILE))
        except RuntimeError as error:  # USearch raises it when the disk is full
            raise OSError(f"USearch: {error}") from error
        return (INDEX_FILE,)

    def search(
        self, queries: Vectors, k: int, *, allowed: Mask | None, group: Groups, groups: int
    ) -> list[Neighbours]:
        """Return the nearest allowed row of each of up to ``k`` groups, for each query."""
        return search_allowed(self, queries, k, allowed, group, groups)

    def nearest(
        self, query: Vectors, count: int
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """Return up to ``count`` keys and their scores for (dimensions,), highest score first."""
        with self._lock:
            count = min(count, self._size)
            if count == 0:
                return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32)
            matches = self._index.search(query, count, threads=1)
        return matches.keys.astype(np.int64), (1.0 - matches.distances).astype(np.float32)

    def vectors(self, keys: npt.NDArray[np.int64]) -> Vectors:
        """Return the stored vectors of keys, (len(keys), dimensions) float32."""
        if len(keys) == 0:
            return np.zeros((0, self._dimensions), dtype=np.float32)
        with self._lock:
            stored: Vectors = np.array(self._index.get(keys.astype(np.uint64)), dtype=np.float32)
        return stored


KIND = UsearchHnsw()
