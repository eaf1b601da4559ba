"""Search hits over several shards: the best of the rows that they found, each listing once, as columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shashin.shards.kinds.native.library import Listings
from shashin.shards.kinds.protocol import Hits


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


def best_of(found: Sequence[Candidates], listings: Listings, k: int) -> Hits:
    """Return the up to ``k`` nearest listings of each query, each with the nearest photo of its newest
    version found.
    """
    counts = np.array([len(of_query) for of_query in found], np.int32)
    begins = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts[:-1], dtype=np.int64)])
    every = joined(found)
    return listings.best(every.shards, every.rows, every.scores, begins, counts, k)
