"""Search hits over several shards: the best of the rows that they found, each listing once, as columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import numpy as np
import numpy.typing as npt

from shashin.shards.kinds.native.library import Listings


@dataclass(frozen=True, eq=False)
class Candidates:
    """Rows of several shards with their scores, in any order."""

    shards: npt.NDArray[np.int64]
    """(n,): the position of each row's shard."""
    rows: npt.NDArray[np.int64]
    """(n,)."""
    scores: npt.NDArray[np.float32]
    """(n,): cosine similarities."""

    def __len__(self) -> int:
        return len(self.rows)


def joined(parts: Sequence[Candidates]) -> Candidates:
    """Return the rows of all parts."""
    if len(parts) == 1:
        return parts[0]
    return Candidates(
        np.concatenate([np.zeros(0, np.int64), *(part.shards for part in parts)]),
        np.concatenate([np.zeros(0, np.int64), *(part.rows for part in parts)]),
        np.concatenate([np.zeros(0, np.float32), *(part.scores for part in parts)]),
    )


@dataclass(frozen=True, eq=False)
class Hits:
    """The hits of m queries as columns. Those of a query are next to each other, nearest first, each
    listing once.
    """

    counts: Sequence[int]
    """(m,): how many hits each query has."""
    found: Candidates
    """The row of each hit."""
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


def best_of(found: Sequence[Candidates], listings: Listings, k: int) -> Hits:
    """Return the up to ``k`` nearest listings of each query, each with the nearest photo of its newest
    version found.
    """
    counts = np.array([len(of_query) for of_query in found], np.int32)
    begins = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts[:-1], dtype=np.int64)])
    return best_of_block(joined(found), begins, counts, listings, k)


def best_of_block(
    found: Candidates,
    begins: npt.NDArray[np.int64],
    counts: npt.NDArray[np.int32],
    listings: Listings,
    k: int,
) -> Hits:
    """Return the hits of m queries as ``best_of``, from arrays with what was found for all of them.

    Those of a query begin at ``begins`` (m,) and are ``counts`` (m,); what is between them is ignored.
    """
    best = listings.best(found.shards, found.rows, found.scores, begins, counts, k)
    return Hits(
        best.counts,
        Candidates(best.shards, best.rows, best.scores),
        best.ids,
        best.id_lengths,
        best.versions,
        best.photo_numbers,
    )
