"""The coarse quantizer of a model: centroids that divide its vectors into lists.

Shards with the same quantizer can be searched together, list by list. Until one is trained there is one
list, which has everything.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from math import log2
from pathlib import Path

import numpy as np
import numpy.typing as npt

from shashin.shards.kinds.npy_file import map_array, write_array
from shashin.shards.kinds.protocol import Vectors

_ROWS_PER_LIST = 32
"""Rows that centroids are trained from; more change little."""

_ROUNDS = 6
"""Of k-means; later ones change little."""

_LEAST_ROWS = 10_000
"""Below it all rows are one list: reading the codes of so many takes tens of microseconds."""

_MOST_LISTS = 4_096
"""Each search compares with every centroid."""

_TOO_COARSE = 4
"""A quantizer is replaced by one of so many times the lists: what is not rewritten stays apart."""

_BLOCK = 2_048
"""Rows compared with all centroids at a time."""

_DTYPE = np.dtype("<f4")

Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Quantizer:
    """Centroids, (lists, dimensions) float32 of unit length; a single one is all zeros."""

    centroids: Vectors

    @classmethod
    def flat(cls, dimensions: int) -> Quantizer:
        """Return the quantizer with one list."""
        return cls(np.zeros((1, dimensions), np.float32))

    @classmethod
    def open(cls, path: Path, dimensions: int, *, lists: int | None = None) -> Quantizer:
        """Map a written quantizer; of so many lists, if that is known.

        Raises:
            CorruptShard: when the file is missing, was not written by ``write``, or has other lists.
        """
        holds = f"centroids of {dimensions} dimensions"
        return cls(map_array(path, _DTYPE, dimensions, holds=holds, expected=lists))

    def __len__(self) -> int:
        """Return the number of lists."""
        return len(self.centroids)

    @property
    def dimensions(self) -> int:
        """The length of vectors."""
        return int(self.centroids.shape[1])

    def write(self, path: Path) -> None:
        """Write the centroids; the same ones produce the same bytes.

        Raises:
            OSError: when the file cannot be written.
        """
        write_array(path, self.centroids.astype(_DTYPE, copy=False))

    def is_same(self, other: Quantizer) -> bool:
        """Whether lists of the two have the same meaning."""
        return self is other or np.array_equal(self.centroids, other.centroids)

    def nearest_lists(self, vectors: npt.NDArray[np.floating]) -> Numbers:
        """Return the list of each vector, (n,)."""
        if len(self) == 1:
            return np.zeros(len(vectors), np.int64)
        return nearest(vectors, self.centroids)

    @cached_property
    def rotation(self) -> Vectors:
        """The orthogonal matrix, (dimensions, dimensions), that residuals are multiplied by."""
        return rotation(self.dimensions)

    @cached_property
    def rotated(self) -> Vectors:
        """The centroids times the rotation, (lists, dimensions)."""
        return np.ascontiguousarray(self.centroids @ self.rotation.T)


def lists_for(rows: int) -> int:
    """Return how many lists are right for an index of so many rows: a power of two, 1 for few rows."""
    if rows < _LEAST_ROWS:
        return 1
    return int(min(_MOST_LISTS, 2 ** round(log2(4 * rows**0.5))))


def is_too_coarse(lists: int, rows: int) -> bool:
    """Whether another quantizer should be trained for so many rows."""
    return lists_for(rows) >= _TOO_COARSE * lists


def train(vectors: npt.NDArray[np.floating], lists: int) -> Quantizer:
    """Return a quantizer of about so many lists, trained from a sample of vectors (n, dimensions).

    Fewer if lists would have no row of the sample.
    """
    rng = np.random.default_rng(0)
    count = min(len(vectors), _ROWS_PER_LIST * lists)
    sample = vectors[np.sort(rng.choice(len(vectors), count, replace=False))]
    return Quantizer(spherical_k_means(sample, min(lists, count)))


def spherical_k_means(sample: npt.NDArray[np.floating], lists: int) -> Vectors:
    """Return up to ``lists`` centroids of unit length, each of which is nearest to some vector."""
    rng = np.random.default_rng(0)
    first = sample[np.sort(rng.choice(len(sample), lists, replace=False))].astype(np.float32)
    centroids = np.unique(unit(first), axis=0)
    for _ in range(_ROUNDS):
        of_row = nearest(sample, centroids)
        order = np.argsort(of_row, kind="stable")
        used, begins = np.unique(of_row[order], return_index=True)
        sums = np.zeros((len(used), sample.shape[1]), dtype=np.float32)
        ends = [*begins[1:], len(order)]
        for number, (begin, end) in enumerate(zip(begins, ends, strict=True)):
            sums[number] = sample[order[begin:end]].sum(axis=0, dtype=np.float32)
        centroids = unit(sums)
    return centroids


def unit(vectors: npt.NDArray[np.floating]) -> Vectors:
    """Return vectors scaled to unit length; zeros stay zeros."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.where(norms > 0, norms, 1)).astype(np.float32, copy=False)


def nearest(vectors: npt.NDArray[np.floating], centroids: Vectors) -> Numbers:
    """Return the number of the nearest centroid of each vector, (n,)."""
    numbers = np.empty(len(vectors), dtype=np.int64)
    for block in blocks(len(vectors)):
        numbers[block] = (vectors[block].astype(np.float32) @ centroids.T).argmax(axis=1)
    return numbers


def blocks(count: int) -> Iterator[slice]:
    """Yield slices of as many rows as are compared at a time."""
    for start in range(0, count, _BLOCK):
        yield slice(start, min(start + _BLOCK, count))


def rotation(dimensions: int) -> Vectors:
    """Return an orthogonal matrix that spreads any vector evenly over the components.

    Part of the format: it follows from the number of dimensions. Signs are flipped, and blocks as large
    as a power of two are multiplied by a Hadamard matrix; once from the front and once from the back,
    so that every component reaches every other one.
    """
    sizes = [
        1 << bit for bit in range(dimensions.bit_length() - 1, -1, -1) if dimensions >> bit & 1
    ]
    made = np.eye(dimensions)
    for turn, order in enumerate((sizes, sizes[::-1])):
        made = _blocks_of_hadamard(order) @ (_signs(dimensions, turn)[:, None] * made)
    return np.ascontiguousarray(made, dtype=np.float32)


def _blocks_of_hadamard(sizes: list[int]) -> npt.NDArray[np.float64]:
    matrix = np.zeros((sum(sizes), sum(sizes)))
    start = 0
    for size in sizes:
        block = np.ones((1, 1))
        while len(block) < size:
            block = np.block([[block, block], [block, -block]])
        matrix[start : start + size, start : start + size] = block / np.sqrt(size)
        start += size
    return matrix


def _signs(count: int, turn: int) -> npt.NDArray[np.float64]:
    digest = b"".join(
        hashlib.sha256(f"shashin rotation {turn} {n}".encode()).digest()
        for n in range(count // 256 + 1)
    )
    bits = np.unpackbits(np.frombuffer(digest, np.uint8))[:count]
    return np.where(bits, 1.0, -1.0)
