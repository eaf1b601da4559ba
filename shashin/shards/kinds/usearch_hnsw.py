"""``usearch-hnsw``: a USearch HNSW graph with bfloat16 vectors.

This module works around USearch's limitations. Calls on one index share scratch memory, so
concurrent searches, or a search and an add, interfere: a lock is held around each call. Concurrent
adds leave nodes unreachable and make the bytes non-deterministic: only one thread adds, in key
order. The Python search has no filter: see ``masked_search``. Many equal vectors cut the graph: see
``equal_vectors``. A mapped index never changes.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
from usearch.compiled import MetricKind, ScalarKind
from usearch.index import Index

from shashin.errors import CorruptShard, UnknownFormat
from shashin.shards.format.index_spec import IndexSpec
from shashin.shards.kinds.equal_vectors import GrowingNodes, Hashes, MappedNodes, RowNodes
from shashin.shards.kinds.masked_search import search_allowed
from shashin.shards.kinds.protocol import Groups, Mask, Neighbours, Vectors

NAME = "usearch-hnsw"
INDEX_FILE = "index.usearch"
METRIC = "ip"
STORED_TYPE = "bf16"

_LEAST = {"connectivity": 2}
"""Lower bounds other than 1: the library refuses a graph of one edge per node."""

_MAX_PARAMETER = 65_535
"""Upper bound, above any sensible value; far beyond it the library runs out of memory or overflows."""

_ADD_BATCH = 8
"""Vectors added per lock acquisition: about 2 ms, which a search may have to wait."""

_BLOCK = 4096
"""Vectors allocated at a time."""

_FEW = 256
"""Up to so many vectors are copied one by one, which is faster than block by block."""


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

    def builder(self, dimensions: int) -> GrowingUsearchIndex:
        """Return an empty index, which can also be searched while it grows."""
        return GrowingUsearchIndex(dimensions, self)

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
            if name not in known or not _LEAST.get(name, 1) <= value <= _MAX_PARAMETER
        }
        if invalid:
            raise UnknownFormat(
                f"the index in {folder} has index parameters that this version does not support: "
                f"{invalid}; expected {', '.join(sorted(known))}, from 1 (connectivity: 2) to {_MAX_PARAMETER}"
            )
        path = folder / INDEX_FILE
        _check_metadata(path, spec.dimensions)
        parameters = UsearchHnsw(**spec.parameters)
        graph = _Graph(spec.dimensions, parameters)
        graph.map(path)
        vectors = _MappedVectors(path, graph.nodes, spec.dimensions)
        row_nodes = MappedNodes(folder, graph.nodes)
        return UsearchIndex(spec.dimensions, parameters, graph, vectors, row_nodes)


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


class _Vectors(Protocol):
    """The vectors of nodes, as bfloat16."""

    @property
    def memory_bytes(self) -> int:
        """Bytes in memory."""
        ...

    def take(self, nodes: npt.NDArray[np.int64]) -> npt.NDArray[np.uint16]:
        """Return the vectors of nodes, (len(nodes), dimensions)."""
        ...


class _GrowingVectors:
    """Vectors in blocks that are never moved, since the library keeps pointers into them."""

    def __init__(self, dimensions: int) -> None:
        self._dimensions = dimensions
        self._blocks: list[npt.NDArray[np.uint16]] = []

    @property
    def memory_bytes(self) -> int:
        return sum(block.nbytes for block in list(self._blocks))

    def put(self, node: int, vector: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint16]:
        """Store the vector of the next node; returns it as stored, (1, dimensions)."""
        block, row = divmod(node, _BLOCK)
        if block == len(self._blocks):
            self._blocks.append(np.zeros((_BLOCK, self._dimensions), dtype=np.uint16))
        stored = self._blocks[block][row : row + 1]
        stored[:] = vector
        return stored

    def take(self, nodes: npt.NDArray[np.int64]) -> npt.NDArray[np.uint16]:
        taken = np.empty((len(nodes), self._dimensions), dtype=np.uint16)
        blocks, rows = np.divmod(nodes, _BLOCK)
        if len(nodes) <= _FEW:
            for place, (block, row) in enumerate(zip(blocks.tolist(), rows.tolist(), strict=True)):
                taken[place] = self._blocks[block][row]
        else:
            for block in np.unique(blocks):
                of_block = blocks == block
                taken[of_block] = self._blocks[block][rows[of_block]]
        return taken


class _MappedVectors:
    """Vectors in the file of an index, which begins with them."""

    memory_bytes = 0

    def __init__(self, path: Path, nodes: int, dimensions: int) -> None:
        """Map them.

        Raises:
            CorruptShard: when the file does not begin with so many vectors.
        """
        try:
            shape = tuple(np.fromfile(path, dtype="<u4", count=2).tolist())
            if shape != (nodes, 2 * dimensions):
                raise CorruptShard(
                    f"{path} is not an index of {nodes} vectors of {dimensions} dimensions: it "
                    f"begins with {shape}"
                )
            mapped = np.memmap(path, "<u2", mode="r", offset=8, shape=(nodes, dimensions))
        except OSError as error:
            raise CorruptShard(f"{path} is not a USearch index: {error}") from error
        # A plain view: anything computed from a memmap would be a memmap too.
        self._stored = np.asarray(mapped)

    def take(self, nodes: npt.NDArray[np.int64]) -> npt.NDArray[np.uint16]:
        taken: npt.NDArray[np.uint16] = self._stored[nodes]
        return taken


class _Graph:
    """The library's index of nodes, under its lock."""

    def __init__(self, dimensions: int, parameters: UsearchHnsw) -> None:
        self._lock = threading.Lock()
        self._index = Index(
            ndim=dimensions,
            metric=METRIC,
            dtype=STORED_TYPE,
            connectivity=parameters.connectivity,
            expansion_add=parameters.expansion_add,
            expansion_search=parameters.expansion_search,
            # Keys are node numbers, and vectors are read without the library: 56 bytes a node less.
            enable_key_lookups=False,
        )
        self.nodes = 0
        """Nodes fully added: the library's count includes one that is still being added."""

    @property
    def memory_bytes(self) -> int:
        with self._lock:
            return int(self._index.memory_usage)

    def map(self, path: Path) -> None:
        try:
            self._index.view(str(path))
        except (RuntimeError, ValueError) as error:
            raise CorruptShard(f"{path} is not a USearch index: {error}") from error
        self.nodes = len(self._index)

    def add(self, stored: Sequence[npt.NDArray[np.uint16]]) -> None:
        """Add the next nodes: vectors (1, dimensions) that must stay where they are."""
        with self._lock:
            for vector in stored:
                key = np.array([self.nodes], dtype=np.uint64)
                self._index.add(key, vector, dtype=STORED_TYPE, copy=False, threads=1)
                self.nodes += 1

    def save(self, path: Path) -> None:
        try:
            with self._lock:
                self._index.save(str(path))
        except RuntimeError as error:  # USearch raises it when the disk is full
            raise OSError(f"USearch: {error}") from error

    def nearest(self, query: Vectors, count: int) -> npt.NDArray[np.int64]:
        """Return up to ``count`` nodes, about the nearest."""
        with self._lock:
            count = min(count, self.nodes)
            if count == 0:
                return np.zeros(0, dtype=np.int64)
            matches = self._index.search(query, count, threads=1)
        found: npt.NDArray[np.int64] = matches.keys.astype(np.int64)
        return found


class UsearchIndex:
    """One graph of distinct vectors, growing or mapped."""

    def __init__(
        self,
        dimensions: int,
        parameters: UsearchHnsw,
        graph: _Graph,
        vectors: _Vectors,
        row_nodes: RowNodes,
    ) -> None:
        self._dimensions = dimensions
        self._parameters = parameters
        self._graph = graph
        self._vectors = vectors
        self.row_nodes = row_nodes

    @property
    def spec(self) -> IndexSpec:
        """The index's description for the manifest."""
        return IndexSpec(NAME, METRIC, STORED_TYPE, self._dimensions, asdict(self._parameters))

    @property
    def memory_bytes(self) -> int:
        """Bytes in memory."""
        parts = (self._graph, self._vectors, self.row_nodes)
        return sum(part.memory_bytes for part in parts)

    @property
    def nodes(self) -> int:
        """Number of distinct vectors."""
        return self._graph.nodes

    def __len__(self) -> int:
        return len(self.row_nodes)

    def search(
        self, queries: Vectors, k: int, *, allowed: Mask | None, group: Groups, groups: int
    ) -> list[Neighbours]:
        """Return the nearest allowed row of each of up to ``k`` groups, for each query."""
        return search_allowed(self, queries, k, allowed, group, groups)

    def nearest(
        self, query: Vectors, count: int
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """Return up to ``count`` nodes and their scores for (dimensions,), nearest first.

        The library rounds the query to bfloat16, so its scores are replaced by exact ones.
        """
        nodes = self._graph.nearest(query, count)
        scores = self.node_vectors(nodes) @ query
        order = np.argsort(-scores, kind="stable")
        return nodes[order], scores[order]

    def node_vectors(self, nodes: npt.NDArray[np.int64]) -> Vectors:
        """Return the vectors of nodes, (len(nodes), dimensions) float32."""
        wide = self._vectors.take(nodes).astype(np.uint32)
        wide <<= 16
        return wide.view(np.float32)

    def vectors(self, keys: npt.NDArray[np.int64]) -> Vectors:
        """Return the stored vectors of rows, (len(keys), dimensions) float32."""
        return self.node_vectors(self.row_nodes.nodes_of(keys))


class GrowingUsearchIndex(UsearchIndex):
    """An index that one thread adds to."""

    model_files: Sequence[str] = ()

    def __init__(self, dimensions: int, parameters: UsearchHnsw) -> None:
        self._stored = _GrowingVectors(dimensions)
        self._growing_nodes = GrowingNodes()
        self._nodes_by_hash = Hashes()
        self._size = 0
        super().__init__(
            dimensions,
            parameters,
            _Graph(dimensions, parameters),
            self._stored,
            self._growing_nodes,
        )

    def __len__(self) -> int:
        return self._size

    @property
    def memory_bytes(self) -> int:
        """Bytes in memory."""
        return super().memory_bytes + self._nodes_by_hash.memory_bytes

    def add(self, vectors: Vectors) -> None:
        """Append vectors (n, dimensions) under the next keys."""
        rounded = to_bfloat16(vectors)
        for start in range(0, len(rounded), _ADD_BATCH):
            batch = rounded[start : start + _ADD_BATCH]
            self._graph.add([stored for v in batch for stored in self._append(v)])
            self._size += len(batch)

    def _append(self, vector: npt.NDArray[np.uint16]) -> list[npt.NDArray[np.uint16]]:
        """Append a row; returns its vector if it needs a node of its own."""
        content = vector.tobytes()
        hashed = hash(content) & 0xFFFF_FFFF_FFFF_FFFF
        for node in self._nodes_by_hash.numbers(hashed):
            if self._stored.take(np.array([node])).tobytes() == content:
                self._growing_nodes.append(node)
                return []
        node = self._growing_nodes.nodes
        self._nodes_by_hash.add(hashed, node)
        self._growing_nodes.append(node)
        return [self._stored.put(node, vector)]

    def write(self, folder: Path) -> Sequence[str]:
        """Write ``index.usearch``, and ``nodes.npy`` if rows have equal vectors."""
        self._graph.save(folder / INDEX_FILE)
        return (INDEX_FILE, *self._growing_nodes.write(folder))


def to_bfloat16(vectors: Vectors) -> npt.NDArray[np.uint16]:
    """Return the bits of finite vectors rounded to bfloat16, to even as the library does."""
    bits = np.ascontiguousarray(vectors, dtype=np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


KIND = UsearchHnsw()
