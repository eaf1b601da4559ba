"""Equal vectors collapsed: a graph gets each distinct vector once, as a node of one or more rows.

HNSW does not survive many equal vectors, such as one photo in a thousand listings: each is nearest
to the others, so their edges lead nowhere else, and rows behind them cannot be reached. Nodes are
numbered in the order of their first rows. While no two rows are equal, a row's number is its node's,
and nothing is stored.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from shashin.errors import CorruptShard
from shashin.shards.growing_array import GrowingArray
from shashin.shards.kinds.npy_file import map_array, write_array

NODES_FILE = "nodes.npy"
"""The node of each row, (n,) uint32; there is no such file if no two rows are equal."""

_DTYPE = np.dtype("<u4")
_RECENT = 1024

Numbers = npt.NDArray[np.int64]
"""(n,) int64 numbers of rows or nodes."""


class RowNodes(Protocol):
    """Which rows belong to which node."""

    def __len__(self) -> int:
        """Return the number of rows."""
        ...

    @property
    def memory_bytes(self) -> int:
        """Bytes in memory."""
        ...

    def nodes_of(self, rows: Numbers) -> Numbers:
        """Return the node of each row."""
        ...

    def rows_of(self, nodes: Numbers) -> tuple[Numbers, Numbers]:
        """Return all rows of nodes, in any order, and for each the position of its node."""
        ...


class GrowingNodes:
    """Nodes of rows that one thread appends, while others read.

    A row's place is there before the row is counted and before its node is in the graph.
    """

    def __init__(self) -> None:
        self._rows = 0
        self._nodes = 0
        # From the first row on that equals an earlier one:
        self._node_of: GrowingArray | None = None
        self._first: GrowingArray | None = None
        self._more: dict[int, _Rows] = {}
        """The rows of a node except its first."""

    def __len__(self) -> int:
        return self._rows

    @property
    def nodes(self) -> int:
        """Number of nodes."""
        return self._nodes

    @property
    def memory_bytes(self) -> int:
        """Bytes in memory."""
        arrays = [self._node_of, self._first, *(rows.numbers for rows in list(self._more.values()))]
        return sum(array.data.nbytes for array in arrays if array is not None)

    def append(self, node: int) -> None:
        """Add the next row to a node; ``nodes`` as its number makes a new one."""
        row = self._rows
        if node < self._nodes:
            if self._node_of is None or self._first is None:
                self._first = _identity(self._nodes)
                self._node_of = _identity(row)
            if node not in self._more:
                self._more[node] = _Rows()
            self._more[node].append(row)
        elif self._first is not None:
            self._first.put(node, row)
        if self._node_of is not None:
            self._node_of.put(row, node)
        self._nodes = max(self._nodes, node + 1)
        self._rows += 1

    def nodes_of(self, rows: Numbers) -> Numbers:
        """Return the node of each row."""
        return rows if self._node_of is None else self._node_of.data[rows].astype(np.int64)

    def rows_of(self, nodes: Numbers) -> tuple[Numbers, Numbers]:
        """Return all rows of nodes, in any order, and for each the position of its node."""
        positions = np.arange(len(nodes))
        if self._first is None:
            return nodes, positions
        rows = [self._first.data[nodes].astype(np.int64)]
        at = [positions]
        for position, node in enumerate(nodes.tolist()):
            more = self._more.get(node)
            if more is not None:
                rows.append(more.all())
                at.append(np.full(len(rows[-1]), position))
        return np.concatenate(rows), np.concatenate(at)

    def write(self, folder: Path) -> list[str]:
        """Write the node of each row, unless each has its own; returns the names of the files."""
        if self._node_of is None:
            return []
        write_array(folder / NODES_FILE, self._node_of.data[: self._rows])
        return [NODES_FILE]


class MappedNodes:
    """Nodes of the rows of a written index.

    Raises:
        CorruptShard: when the folder's file does not belong to an index of so many nodes.
    """

    def __init__(self, folder: Path, nodes: int) -> None:
        self.nodes = nodes
        path = folder / NODES_FILE
        self._node_of: npt.NDArray[np.uint32] | None = None
        if path.exists():
            self._node_of = map_array(path, _DTYPE, None, holds="nodes")
            self._check(path, self._node_of)
            self._by_node = np.argsort(self._node_of, kind="stable").astype(np.uint32)
            counts = np.bincount(self._node_of, minlength=nodes)
            self._ends = np.cumsum(counts).astype(np.uint32)

    def _check(self, path: Path, node_of: npt.NDArray[np.uint32]) -> None:
        """Each node occurs, first in the order of their numbers, and not each only once."""
        so_far = np.maximum.accumulate(node_of, dtype=np.int64)
        new = np.diff(so_far, prepend=-1)
        if ((new != 0) & (new != 1)).any() or not new.sum() == self.nodes < len(node_of):
            raise CorruptShard(
                f"{path} does not have the nodes of the rows of an index of {self.nodes} vectors: "
                "rebuild the shard"
            )

    def __len__(self) -> int:
        return self.nodes if self._node_of is None else len(self._node_of)

    @property
    def memory_bytes(self) -> int:
        """Bytes in memory."""
        return 0 if self._node_of is None else self._by_node.nbytes + self._ends.nbytes

    def nodes_of(self, rows: Numbers) -> Numbers:
        """Return the node of each row."""
        return rows if self._node_of is None else self._node_of[rows].astype(np.int64)

    def rows_of(self, nodes: Numbers) -> tuple[Numbers, Numbers]:
        """Return all rows of nodes, in any order, and for each the position of its node."""
        positions = np.arange(len(nodes))
        if self._node_of is None:
            return nodes, positions
        ends = self._ends[nodes].astype(np.int64)
        starts = np.where(nodes > 0, self._ends[nodes - 1], 0).astype(np.int64)
        counts = ends - starts
        at = np.repeat(positions, counts)
        within = np.arange(len(at)) - np.repeat(np.cumsum(counts) - counts, counts)
        return self._by_node[starts[at] + within].astype(np.int64), at


class Hashes:
    """Numbers by 64-bit hash, in 12 bytes each where a dict takes a hundred; one thread only.

    Sorted runs, of which two of about equal length are merged into one, and a dict of what was added
    since the last run.
    """

    def __init__(self) -> None:
        self._recent: dict[int, tuple[int, ...]] = {}
        self._runs: list[tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint32]]] = []

    @property
    def memory_bytes(self) -> int:
        """Bytes of the runs in memory."""
        return sum(hashes.nbytes + numbers.nbytes for hashes, numbers in list(self._runs))

    def add(self, hashed: int, number: int) -> None:
        """Add a number under a hash, from 0 to 2^64 - 1."""
        self._recent[hashed] = (*self._recent.get(hashed, ()), number)
        if len(self._recent) >= _RECENT:
            pairs = [(h, n) for h, numbers in self._recent.items() for n in numbers]
            self._recent = {}
            self._add_run(
                np.array([h for h, _ in pairs], dtype=np.uint64),
                np.array([n for _, n in pairs], dtype=np.uint32),
            )

    def _add_run(self, hashes: npt.NDArray[np.uint64], numbers: npt.NDArray[np.uint32]) -> None:
        while self._runs and len(self._runs[-1][0]) < 2 * len(hashes):
            other_hashes, other_numbers = self._runs.pop()
            hashes = np.concatenate([other_hashes, hashes])
            numbers = np.concatenate([other_numbers, numbers])
        order = np.argsort(hashes)
        self._runs.append((hashes[order], numbers[order]))

    def numbers(self, hashed: int) -> list[int]:
        """Return the numbers that were added under a hash."""
        found = list(self._recent.get(hashed, ()))
        wanted = np.uint64(hashed)
        for hashes, numbers in self._runs:
            begin = int(np.searchsorted(hashes, wanted))
            while begin < len(hashes) and hashes[begin] == wanted:
                found.append(int(numbers[begin]))
                begin += 1
        return found


class _Rows:
    """Ascending numbers of rows, readable while they grow."""

    __slots__ = ("_count", "numbers")

    def __init__(self) -> None:
        self.numbers = GrowingArray(_DTYPE, capacity=2)
        self._count = 0

    def append(self, row: int) -> None:
        self.numbers.put(self._count, row)
        self._count += 1

    def all(self) -> Numbers:
        count = self._count  # before the array, which may be replaced by a longer one
        return self.numbers.data[:count].astype(np.int64)


def _identity(count: int) -> GrowingArray:
    made = GrowingArray(_DTYPE, capacity=max(1024, 2 * count))
    made.data[:count] = np.arange(count)
    return made
