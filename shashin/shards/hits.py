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

    def taken(self, numbers: npt.NDArray[np.integer]) -> Candidates:
        """Return some of them, in the order of ``numbers``."""
        return Candidates(self.shards[numbers], self.rows[numbers], self.scores[numbers])

    def nearest_first(self) -> Candidates:
        """Return them by descending score; those of equal score in the order of shards and rows."""
        if len(self) < 2 or (self.scores[1:] < self.scores[:-1]).all():
            return self
        return self.taken(np.lexsort((self.rows, self.shards, -self.scores)))


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
    kept, id_bytes = [], 0
    for of_query in found:
        ordered = of_query.nearest_first()
        numbers, length = listings.best(ordered.shards, ordered.rows, ordered.scores, k)
        kept.append(ordered.taken(numbers))
        id_bytes += length
    every = joined(kept)
    identified = listings.identify(every.shards, every.rows, id_bytes)
    return Hits(
        [len(of_query) for of_query in kept],
        every,
        identified.ids.tobytes(),
        identified.id_lengths,
        identified.versions,
        identified.photo_numbers,
    )
