"""The interface of index kinds: building, writing, opening and searching an index.

A kind hides the quirks of its library, including locking: every method here may be called from any
thread while one other thread adds. Keys are row numbers: vector i belongs to row i of the shard.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from shashin.shards.format.index_spec import IndexSpec

if TYPE_CHECKING:
    from shashin.shards.kinds.native.library import Listings
    from shashin.shards.kinds.quantizer import Quantizer

Vectors = npt.NDArray[np.float32]
"""Row-major (n, dimensions) float32, unit length."""

Mask = npt.NDArray[np.bool_]
"""(n,) bool, one flag per row."""

Groups = npt.NDArray[np.uint32]
"""(n,) uint32: rows of one listing share a number."""


@dataclass(frozen=True)
class Neighbours:
    """Rows and scores of one query, highest score first, one row per group."""

    rows: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float32]


class SearchableIndex(Protocol):
    """Nearest neighbours by inner product over the vectors 0 .. n-1."""

    def __len__(self) -> int:
        """Return the number of searchable vectors."""
        ...

    @property
    def memory_bytes(self) -> int:
        """Memory used by the index, in bytes; mapped pages belong to the page cache."""
        ...

    def search(
        self, queries: Vectors, k: int, *, allowed: Mask | None, group: Groups, groups: int
    ) -> list[Neighbours]:
        """Return the nearest allowed row of each of up to ``k`` groups, for each query.

        ``queries`` is (m, dimensions); ``group`` (n,) has the groups of the first n rows, and
        later rows are not searched; ``allowed`` (n,) is None if all rows are allowed; ``groups``
        is the approximate number of groups. Returns fewer than ``k`` only if there are no more.
        """
        ...

    def vectors(self, keys: npt.NDArray[np.int64]) -> Vectors:
        """Return the stored vectors of keys, (len(keys), dimensions)."""
        ...


@runtime_checkable
class MappedIndex(Protocol):
    """An index whose vectors are in a mapped file."""

    def drop_vectors(self) -> None:
        """Give the memory of vectors that were read back to the system; they can be read again."""
        ...


@dataclass(frozen=True, eq=False)
class RowMask:
    """Which rows of a shard meet a filter."""

    flags: Mask
    """(n,)."""
    count: int
    """How many do."""


class Masked(Protocol):
    """Counts the rows that may not be found."""

    @property
    def flagged(self) -> int:
        """How many rows have a flag other than 0."""
        ...


@dataclass(frozen=True, eq=False)
class StackMember:
    """An index that is searched together with others, and what a search needs to know of its rows."""

    index: SearchableIndex
    flags: npt.NDArray[np.uint8]
    """(n,): 0 if a row may be found. Read without a copy, so that a change counts at once."""
    group: Groups
    """(n,)."""
    groups: int
    """Number of groups."""
    masked: Masked
    """Counts the flags."""


@dataclass(frozen=True, eq=False)
class OpenRows:
    """The rows of an index that grows, as one search finds them."""

    index: SearchableIndex
    rows: int
    """How many are searched: what was added later is not."""
    flags: npt.NDArray[np.uint8]
    """(n,), at least ``rows``: 0 if a row may be found. Read without a copy."""
    replaced: npt.NDArray[np.uint32]
    """(n,), at least ``rows``: with how many rows a newer version replaces the row, 0 if none does."""
    group: Groups
    """(n,), at least ``rows``."""
    groups: int
    """Number of groups."""
    flagged: int
    """How many rows have a flag other than 0."""


@dataclass(frozen=True)
class StackHits:
    """Hits of m queries, nearest first: of query i the first ``counts[i]`` of k."""

    members: npt.NDArray[np.uint32]
    """(m, k): the number of each hit's member."""
    rows: npt.NDArray[np.uint32]
    """(m, k)."""
    scores: npt.NDArray[np.float32]
    """(m, k)."""
    counts: npt.NDArray[np.int32]
    """(m,)."""


class Hits(NamedTuple):
    """The hits of m queries, n in all, as columns. Those of a query are next to each other, nearest first,
    each listing once.
    """

    counts: Sequence[int]
    """(m,): how many hits each query has."""
    shards: npt.NDArray[np.int64]
    """(n,): the position of each row's shard."""
    rows: npt.NDArray[np.int64]
    """(n,)."""
    scores: npt.NDArray[np.float32]
    """(n,): cosine similarities."""
    ids: bytes
    """Listing ids in UTF-8, one after another."""
    id_lengths: npt.NDArray[np.uint32]
    """(n,), in bytes."""
    versions: npt.NDArray[np.uint64]
    """(n,)."""
    photo_numbers: npt.NDArray[np.uint32]
    """(n,)."""

    def slices(self) -> list[slice]:
        """Return where the hits of each query are."""
        return [slice(*bounds) for bounds in pairwise(accumulate(self.counts, initial=0))]


class Stack(Protocol):
    """Indexes that are searched in one call. It does not change.

    Those that grow are no members: each search is given their rows.
    """

    @property
    def members(self) -> Mapping[int, StackMember]:
        """By number; a member keeps its number in the stacks that follow."""
        ...

    @property
    def memory_bytes(self) -> int:
        """Bytes in memory beyond those of the indexes."""
        ...

    def fits(self, index: SearchableIndex) -> bool:
        """Whether an index can be a member."""
        ...

    def over(self, members: Sequence[StackMember]) -> Stack:
        """Return the stack of these members, made from this one where they are the same."""
        ...

    @property
    def next_number(self) -> int:
        """The number that the first of the open indexes of a search has."""
        ...

    def search(
        self,
        queries: Vectors,
        k: int,
        *,
        allowed: Mapping[int, RowMask] | None,
        opened: Sequence[OpenRows] = (),
    ) -> StackHits:
        """Return the nearest row of each of up to ``k`` groups of all members, for each query.

        ``opened`` are searched as well, with numbers from ``next_number`` on. ``allowed`` has a mask for
        each member and each of these, by number. Returns fewer than ``k`` only if there are no more.
        """

    def search_listings(
        self,
        queries: Vectors,
        groups: int,
        k: int,
        *,
        listings: Listings,
        positions: npt.NDArray[np.int64],
        allowed: Mapping[int, RowMask] | None,
        opened: Sequence[OpenRows] = (),
    ) -> tuple[Hits, list[int]]:
        """Return the ``k`` best listings of what ``search`` finds for ``groups``, and how many rows that is.

        ``listings`` are those of all shards, and ``positions`` says which of them each member is.
        """
        ...


class IndexBuilder(Protocol):
    """Takes vectors in key order, and writes the files of the index."""

    @property
    def spec(self) -> IndexSpec:
        """The index's description for the manifest."""
        ...

    def __len__(self) -> int:
        """Return the number of vectors added."""
        ...

    @property
    def model_files(self) -> Sequence[str]:
        """Names of the files that ``write`` writes alike for many shards of a model, once it has."""
        ...

    def vectors(self, keys: npt.NDArray[np.int64]) -> Vectors:
        """Return the stored vectors of keys, (len(keys), dimensions)."""
        ...

    def add(self, vectors: Vectors) -> None:
        """Append vectors (n, dimensions) under the next keys; one thread only.

        The same vectors in the same order produce the same files, whatever the batch sizes.
        """
        ...

    def write(self, folder: Path) -> Sequence[str]:
        """Finish building and write the files; returns their names.

        Nothing may be added afterwards.

        Raises:
            OSError: when a file cannot be written.
        """
        ...


class GrowingIndex(SearchableIndex, IndexBuilder, Protocol):
    """An index that can be searched while it is built, as open shards require."""


class IndexKind(Protocol):
    """A way to index vectors, with its build parameters."""

    @property
    def name(self) -> str:
        """Its name in manifests and settings."""
        ...

    def builder(self, dimensions: int) -> IndexBuilder:
        """Return an empty index to build and write."""
        ...

    def open(self, spec: IndexSpec, folder: Path) -> SearchableIndex:
        """Open the files of an index, read-only.

        Raises:
            UnknownFormat: when this version does not support the spec.
            CorruptShard: when a file is missing or does not match the spec.
        """
        ...


@runtime_checkable
class QuantizedKind(IndexKind, Protocol):
    """A kind whose indexes are divided by a quantizer of the model."""

    def with_quantizer(self, quantizer: Quantizer) -> IndexKind:
        """Return the kind for indexes of a quantizer."""
        ...

    def training(self) -> IndexKind:
        """Return the kind whose builders train a quantizer if theirs is too coarse for their rows."""
        ...


class GrowingKind(IndexKind, Protocol):
    """A kind whose indexes can be searched while they grow."""

    def growing(self, dimensions: int) -> GrowingIndex:
        """Return an empty index."""
        ...
