"""``ivf-f16``: float16 vectors in lists around centroids, of which a search reads the nearest few.

An inverted file (Sivic and Zisserman 2003; Jégou et al. 2011), for shards that are built at once
from many rows: it is built many times faster than a graph, filters cost nothing, equal vectors are
no special case, and opening it reads nothing. Up to ``_FLAT_ROWS`` rows are one list, which is
searched exactly.

Vectors are stored list by list, so that a search reads a few contiguous pieces. How many lists a
search reads is measured when the index is written, and stored in its parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from shashin.errors import CorruptShard, UnknownFormat
from shashin.shards.format.index_spec import IndexSpec
from shashin.shards.kinds.exact_search import best_of_each, nearest_by_score, nothing
from shashin.shards.kinds.npy_file import map_array, write_array, write_blocks
from shashin.shards.kinds.protocol import Groups, Mask, Neighbours, Vectors
from shashin.shards.kinds.quantizer import blocks, nearest, train, unit

NAME = "ivf-f16"
METRIC = "ip"
STORED_TYPE = "f16"

VECTORS_FILE = "vectors.npy"
"""(n, dimensions) float16, list by list."""
CENTROIDS_FILE = "centroids.npy"
"""(lists, dimensions) float32, unit length."""
STARTS_FILE = "starts.npy"
"""(lists + 1,) uint32: where each list starts."""
ROWS_FILE = "list-rows.npy"
"""(n,) uint32: the row at each position; ascending within a list."""
POSITIONS_FILE = "positions.npy"
"""(n,) uint32: the position of each row."""

_STORED = np.dtype("<f2")
_NUMBER = np.dtype("<u4")
_CENTROID = np.dtype("<f4")

_FLAT_ROWS = 8_192
"""Up to so many rows there is one list: reading all of them takes a millisecond."""

_EXACT_ROWS = 2_000
"""Up to so many allowed rows, all of them are compared."""

_SAMPLE = 128
"""Rows used as queries to measure how many lists a search has to read."""

_QUERY_NOISE = 0.5
"""Length of the noise that is added to a unit-length row to make it a query."""

_TARGET_RECALL = 0.99
"""Of the 10 nearest rows, with the rows of the sample as queries."""

Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class IvfF16:
    """The kind; lists and probes follow from the rows."""

    @property
    def name(self) -> str:
        """Its name in manifests."""
        return NAME

    def builder(self, dimensions: int) -> IvfBuilder:
        """Return an empty index to build and write."""
        return IvfBuilder(dimensions)

    def open(self, spec: IndexSpec, folder: Path) -> IvfIndex:
        """Map a written index into memory, read-only."""
        parameters = dict(spec.parameters)
        lists, probes = parameters.pop("lists", 0), parameters.pop("probes", 0)
        if (spec.metric, spec.stored_type) != (METRIC, STORED_TYPE):
            raise UnknownFormat(
                f"the index in {folder} is of kind {spec}; this version reads "
                f"{NAME} {METRIC} {STORED_TYPE}: upgrade the reader or rebuild the shard"
            )
        if parameters or not 1 <= probes <= lists <= np.iinfo(_NUMBER).max:
            raise UnknownFormat(
                f"the index in {folder} has parameters {dict(spec.parameters)}; expected lists and "
                "probes, 1 <= probes <= lists: upgrade the reader or rebuild the shard"
            )
        holds = f"float16 vectors of {spec.dimensions} dimensions"
        stored = map_array(folder / VECTORS_FILE, _STORED, spec.dimensions, holds=holds)
        if lists == 1:
            return IvfIndex(stored, None, 1)
        centroids = map_array(
            folder / CENTROIDS_FILE, _CENTROID, spec.dimensions, holds="centroids", expected=lists
        )
        starts = map_array(
            folder / STARTS_FILE, _NUMBER, None, holds="starts of lists", expected=lists + 1
        )
        rows, positions = (
            map_array(folder / name, _NUMBER, None, holds=held, expected=len(stored))
            for name, held in ((ROWS_FILE, "row numbers"), (POSITIONS_FILE, "positions of rows"))
        )
        if (
            starts[0] != 0
            or starts[-1] != len(stored)
            or (np.diff(starts.astype(np.int64)) < 0).any()
        ):
            raise CorruptShard(f"{folder / STARTS_FILE} does not divide {len(stored)} vectors")
        return IvfIndex(stored, _Lists(centroids, starts, rows, positions), probes)


@dataclass(frozen=True)
class _Lists:
    """Which vectors are in which list."""

    centroids: Vectors
    starts: npt.NDArray[np.uint32]
    rows: npt.NDArray[np.uint32]
    positions: npt.NDArray[np.uint32]


class IvfIndex:
    """A written index, mapped into memory; without lists it is one list in the order of rows."""

    memory_bytes = 0

    def __init__(self, stored: npt.NDArray[np.float16], lists: _Lists | None, probes: int) -> None:
        self._stored = stored
        self._lists = lists
        self._probes = probes

    def __len__(self) -> int:
        return len(self._stored)

    def search(
        self, queries: Vectors, k: int, *, allowed: Mask | None, group: Groups, groups: int
    ) -> list[Neighbours]:
        """Return the nearest allowed row of each of up to ``k`` groups, for each query."""
        if allowed is None and len(group) < len(self):
            allowed = np.ones(len(group), dtype=np.bool_)
        count = len(group) if allowed is None else int(np.count_nonzero(allowed))
        if count == 0:
            return [nothing()] * len(queries)
        if self._lists is None or count <= _EXACT_ROWS:
            keys = np.arange(len(group)) if allowed is None else np.flatnonzero(allowed)
            vectors = self.vectors(keys)
            return [nearest_by_score(of_query, k, keys, group) for of_query in queries @ vectors.T]
        nearness = queries @ self._lists.centroids.T
        # The further the last of k hits is, the more lists it can be in: k hits are as far as k times
        # as many rows, of which only some are allowed, and several belong to one group.
        rows = max(10.0, k * len(self) / count * len(group) / max(1, groups))
        probes = round(self._probes * (rows / 10) ** 0.5)
        return [
            self._search_lists(query, np.argsort(-near, kind="stable"), probes, k, allowed, group)
            for query, near in zip(queries, nearness, strict=True)
        ]

    def _search_lists(
        self,
        query: Vectors,
        order: Numbers,
        probes: int,
        k: int,
        allowed: Mask | None,
        group: Groups,
    ) -> Neighbours:
        """Search ``probes`` lists in order, and more until there are ``k`` groups."""
        assert self._lists is not None
        found, scores = np.zeros(0, np.int64), np.zeros(0, np.float32)
        read, until = 0, probes
        while True:
            pieces = [self._scored(query, number, allowed) for number in order[read:until]]
            found = np.concatenate([found, *(rows for rows, _ in pieces)])
            scores = np.concatenate([scores, *(of_rows for _, of_rows in pieces)])
            nearest = np.lexsort((found, -scores))
            best = best_of_each(found[nearest], scores[nearest], group, k)
            if len(best.rows) >= k or until >= len(order):
                return best
            read, until = until, 2 * until

    def _scored(
        self, query: Vectors, number: int, allowed: Mask | None
    ) -> tuple[Numbers, npt.NDArray[np.float32]]:
        """Return the allowed rows of a list, and their scores."""
        assert self._lists is not None
        start, end = self._lists.starts[number], self._lists.starts[number + 1]
        rows = self._lists.rows[start:end].astype(np.int64)
        stored = self._stored[start:end]
        if allowed is not None:
            known = rows < len(allowed)
            known[known] = allowed[rows[known]]
            rows, stored = rows[known], stored[known]
        return rows, stored.astype(np.float32) @ query

    def vectors(self, keys: Numbers) -> Vectors:
        """Return the stored vectors of keys, (len(keys), dimensions) float32."""
        at = keys if self._lists is None else self._lists.positions[keys]
        return self._stored[at].astype(np.float32)


class IvfBuilder:
    """Collects float16 vectors; lists are made when they are written."""

    model_files: Sequence[str] = ()

    def __init__(self, dimensions: int) -> None:
        self._dimensions = dimensions
        self._parts: list[npt.NDArray[np.float16]] = []
        self._size = 0
        self._parameters = {"lists": 1, "probes": 1}

    @property
    def spec(self) -> IndexSpec:
        """The index's description for the manifest; of lists once it is written."""
        return IndexSpec(NAME, METRIC, STORED_TYPE, self._dimensions, dict(self._parameters))

    def __len__(self) -> int:
        return self._size

    def add(self, vectors: Vectors) -> None:
        """Append vectors (n, dimensions) under the next keys."""
        if len(vectors):
            self._parts.append(vectors.astype(_STORED))
            self._size += len(vectors)

    def vectors(self, keys: Numbers) -> Vectors:
        """Return the vectors of keys, (len(keys), dimensions) float32."""
        return self._joined()[keys].astype(np.float32)

    def write(self, folder: Path) -> Sequence[str]:
        """Write the files; lists only if there are many rows."""
        stored = self._joined()
        if len(stored) <= _FLAT_ROWS:
            write_array(folder / VECTORS_FILE, stored)
            return (VECTORS_FILE,)
        centroids = train(stored, lists=round(2 * len(stored) ** 0.5)).centroids
        of_row = nearest(stored, centroids)
        rows = np.argsort(of_row, kind="stable")
        starts = np.zeros(len(centroids) + 1, dtype=_NUMBER)
        np.cumsum(np.bincount(of_row, minlength=len(centroids)), out=starts[1:])
        positions = np.empty(len(rows), dtype=_NUMBER)
        positions[rows] = np.arange(len(rows), dtype=_NUMBER)
        write_array(folder / CENTROIDS_FILE, centroids)
        write_array(folder / STARTS_FILE, starts)
        write_array(folder / ROWS_FILE, rows.astype(_NUMBER))
        write_array(folder / POSITIONS_FILE, positions)
        # In blocks: a second copy would double the memory.
        in_order = (stored[rows[block]] for block in blocks(len(rows)))
        write_blocks(folder / VECTORS_FILE, _STORED, stored.shape, in_order)
        lists = _Lists(centroids, starts, rows.astype(_NUMBER), positions)
        mapped = map_array(
            folder / VECTORS_FILE, _STORED, self._dimensions, holds="float16 vectors"
        )
        self._parameters = {"lists": len(centroids), "probes": _probes_needed(mapped, lists)}
        return (VECTORS_FILE, CENTROIDS_FILE, STARTS_FILE, ROWS_FILE, POSITIONS_FILE)

    def _joined(self) -> npt.NDArray[np.float16]:
        """Return all vectors as one array, and drop the parts one by one meanwhile."""
        if len(self._parts) == 1:
            return self._parts[0]
        joined = np.empty((self._size, self._dimensions), dtype=_STORED)
        end = self._size
        while self._parts:
            part = self._parts.pop()
            joined[end - len(part) : end] = part
            end -= len(part)
        self._parts = [joined]
        return joined


def _probes_needed(stored: npt.NDArray[np.float16], lists: _Lists) -> int:
    """Return how many lists have to be read for the target recall of the 10 nearest rows."""
    rng = np.random.default_rng(1)
    sample = np.sort(rng.choice(len(stored), min(_SAMPLE, len(stored)), replace=False))
    noise = unit(rng.standard_normal((len(sample), stored.shape[1])).astype(np.float32))
    # A photo that is searched for resembles a stored one, and is none.
    queries = unit(stored[sample].astype(np.float32) + np.float32(_QUERY_NOISE) * noise)
    tenth = np.full((len(queries), 10), -np.inf, dtype=np.float32)
    for block in blocks(len(stored)):
        scores = np.concatenate([tenth, queries @ stored[block].astype(np.float32).T], axis=1)
        tenth = np.partition(scores, -10, axis=1)[:, -10:]
    lowest = tenth.min(axis=1)
    order = np.argsort(-(queries @ lists.centroids.T), axis=1, kind="stable")
    place = np.argsort(order, axis=1)
    found = np.zeros(order.shape[1], dtype=np.int64)
    for block in blocks(len(stored)):
        scores = queries @ stored[block].astype(np.float32).T
        query, position = np.nonzero(scores >= lowest[:, None] - 1e-6)
        number = np.searchsorted(lists.starts, position + block.start, side="right") - 1
        np.add.at(found, place[query, number], 1)
    reached = np.cumsum(found)
    return int(np.searchsorted(reached, _TARGET_RECALL * reached[-1])) + 1


KIND = IvfF16()
