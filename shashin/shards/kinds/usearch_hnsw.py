"""``usearch-hnsw``: an HNSW graph of USearch, vectors as bfloat16.

What USearch makes its callers see to, seen to here. Callers of one index share its scratch memory,
so that two searches at once, or a search and an add, disturb each other: one lock is held around
each call. Concurrent adds strand nodes and give other bytes each time: one thread adds, in the
order of keys. Its Python search has no filter: see ``masked_search``. A mapped index never changes.
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
"""More than any graph is built with; far beyond it the library runs out of memory, or of bits."""

_ADD_AT_ONCE = 8
"""Vectors added under one hold of the lock: about 2 ms, which a search may have to wait."""


@dataclass(frozen=True)
class UsearchHnsw:
    """How the graph is built (Malkov and Yashunin 2016) and searched."""

    connectivity: int = 16
    """Edges per node (M)."""
    expansion_add: int = 128
    """Candidates when adding (efConstruction)."""
    expansion_search: int = 64
    """Candidates when searching (ef)."""

    @property
    def name(self) -> str:
        """How manifests name it."""
        return NAME

    def builder(self, dimensions: int) -> UsearchIndex:
        """Return an empty index: building one and growing one are the same here."""
        return UsearchIndex(dimensions, self)

    growing = builder

    def open(self, spec: IndexSpec, folder: Path) -> UsearchIndex:
        """Map a written index into memory, read-only."""
        if (spec.metric, spec.stored_type) != (METRIC, STORED_TYPE):
            raise UnknownFormat(
                f"the index in {folder} is of kind {spec}; this version reads "
                f"{NAME} {METRIC} {STORED_TYPE}: upgrade the reader or build the shard again"
            )
        known = {parameter.name for parameter in fields(self)}
        wrong = {
            name: value
            for name, value in spec.parameters.items()
            if name not in known or not 1 <= value <= _MAX_PARAMETER
        }
        if wrong:
            raise UnknownFormat(
                f"the index in {folder} has index parameters that this version does not know: "
                f"{wrong}; expected {', '.join(sorted(known))}, from 1 to {_MAX_PARAMETER}"
            )
        path = folder / INDEX_FILE
        _check_metadata(path, spec.dimensions)
        opened = UsearchIndex(spec.dimensions, UsearchHnsw(**spec.parameters))
        opened.map(path)
        return opened


def _check_metadata(path: Path, dimensions: int) -> None:
    """Refuse a file that says of itself that it is another index.

    The library takes metric and type of the file over whatever was asked for, and fails in its own
    ways on a length of vectors that cannot be.

    Raises:
        CorruptShard: saying what was found.
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
        """Vectors that were added in whole: the library counts one that is still being added."""

    @property
    def spec(self) -> IndexSpec:
        """What the manifest is to say of the index."""
        return IndexSpec(NAME, METRIC, STORED_TYPE, self._dimensions, asdict(self._parameters))

    @property
    def memory_bytes(self) -> int:
        """Bytes in memory."""
        with self._lock:
            return int(self._index.memory_usage)

    def __len__(self) -> int:
        return self._size

    def map(self, path: Path) -> None:
        """Become the index in a file.

        Raises:
            CorruptShard: when the file is not a whole index.
        """
        try:
            self._index.view(str(path))
        except (RuntimeError, ValueError) as error:
            raise CorruptShard(f"{path} is not a USearch index: {error}") from error
        self._size = len(self._index)

    def add(self, vectors: Vectors) -> None:
        """Append vectors (n, dimensions) under the next keys."""
        for start in range(0, len(vectors), _ADD_AT_ONCE):
            some = vectors[start : start + _ADD_AT_ONCE]
            keys = np.arange(self._size, self._size + len(some), dtype=np.uint64)
            with self._lock:
                self._index.add(keys, some, threads=1)
                self._size += len(some)

    def write(self, folder: Path) -> Sequence[str]:
        """Write ``index.usearch``."""
        try:
            with self._lock:
                self._index.save(str(folder / INDEX_FILE))
        except RuntimeError as error:  # how USearch reports a full disk
            raise OSError(f"USearch: {error}") from error
        return (INDEX_FILE,)

    def search(
        self, queries: Vectors, k: int, *, allowed: Mask | None, group: Groups, groups: int
    ) -> list[Neighbours]:
        """Return for each query the nearest allowed row of each of up to ``k`` groups."""
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
