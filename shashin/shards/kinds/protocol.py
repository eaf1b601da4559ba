"""What an index kind is: how it is built, written, opened, searched, and what memory it takes.

A kind owns the quirks of its library, locking included: every method here may be called from any
thread, while one other thread adds. Row numbers are keys: vector i belongs to row i of the shard.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from shashin.shards.format.index_spec import IndexSpec

Vectors = npt.NDArray[np.float32]
"""Row-major (n, dimensions) float32, unit length."""

Mask = npt.NDArray[np.bool_]
"""(n,) bool, a flag per row."""

Groups = npt.NDArray[np.uint32]
"""(n,) uint32: rows of one listing share a number."""


@dataclass(frozen=True)
class Neighbours:
    """Rows and scores of one query, highest score first, each group once."""

    rows: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float32]


class SearchableIndex(Protocol):
    """Nearest neighbours by inner product over the vectors 0 .. n-1."""

    def __len__(self) -> int:
        """Return how many vectors can be searched now."""
        ...

    @property
    def memory_bytes(self) -> int:
        """Bytes that the index holds in memory; mapped pages belong to the page cache."""
        ...

    def search(
        self, queries: Vectors, k: int, *, allowed: Mask | None, group: Groups, groups: int
    ) -> list[Neighbours]:
        """Return for each query the nearest allowed row of each of up to ``k`` groups.

        ``queries`` is (m, dimensions); ``group`` (n,) covers the first n rows, and rows after
        them are no part of the search; ``allowed`` (n,) is None when all may be found; ``groups``
        is about how many groups there are. Fewer than ``k`` only when there are no more.
        """
        ...

    def vectors(self, keys: npt.NDArray[np.int64]) -> Vectors:
        """Return the stored vectors of keys, (len(keys), dimensions)."""
        ...


class IndexBuilder(Protocol):
    """Takes vectors in the order of their keys, and writes the files of the index."""

    @property
    def spec(self) -> IndexSpec:
        """What the manifest is to say of the index."""
        ...

    def __len__(self) -> int:
        """Return how many vectors were added."""
        ...

    def add(self, vectors: Vectors) -> None:
        """Append vectors (n, dimensions) under the next keys; one thread only.

        The same vectors in the same order give the same files, however many come at once.
        """
        ...

    def write(self, folder: Path) -> Sequence[str]:
        """Build what is left to build and write the files; returns their names.

        Nothing may be added after it.

        Raises:
            OSError: when a file cannot be written.
        """
        ...


class GrowingIndex(SearchableIndex, IndexBuilder, Protocol):
    """An index that can be searched while it is built: what an open shard needs."""


class IndexKind(Protocol):
    """A way to index vectors, with the parameters to build with."""

    @property
    def name(self) -> str:
        """How manifests and settings name it."""
        ...

    def builder(self, dimensions: int) -> IndexBuilder:
        """Return an empty index that is built once and then written."""
        ...

    def open(self, spec: IndexSpec, folder: Path) -> SearchableIndex:
        """Open the files of an index, read-only.

        Raises:
            UnknownFormat: when this version cannot read an index of this spec.
            CorruptShard: when a file is missing or is not what the spec says.
        """
        ...


class GrowingKind(IndexKind, Protocol):
    """A kind whose indexes can be searched while they grow."""

    def growing(self, dimensions: int) -> GrowingIndex:
        """Return an empty index."""
        ...
