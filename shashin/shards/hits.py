"""Search hits over several shards: the best of the rows that they found, each listing once, as columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Protocol

import numpy as np
import numpy.typing as npt

from shashin.shards.kinds.native.library import Listings


class Identified(Protocol):
    """Rows that say what they are of."""

    def listing_id(self, number: int) -> str:
        """Return the listing of a row."""
        ...

    def version(self, number: int) -> int:
        """Return the version of a row."""
        ...

    def photo_number(self, number: int) -> int:
        """Return the photo number of a row."""
        ...


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


def best_of_sealed(found: Sequence[Candidates], listings: Listings, k: int) -> Hits:
    """Return the up to ``k`` nearest listings of each query, each with the nearest photo of its newest
    version found; all of ``found`` are rows of sealed shards.
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


def best_of_any(found: Sequence[Candidates], shards: Sequence[Identified], k: int) -> Hits:
    """Return what ``best_of_sealed`` does, of any shards."""
    kept = [_best_of_query(of_query.nearest_first(), shards, k) for of_query in found]
    every = joined(kept)
    rows = [(shards[s], r) for s, r in zip(every.shards.tolist(), every.rows.tolist(), strict=True)]
    ids = [shard.listing_id(row).encode() for shard, row in rows]
    return Hits(
        [len(of_query) for of_query in kept],
        every,
        b"".join(ids),
        np.array([len(encoded) for encoded in ids], np.uint32),
        np.array([shard.version(row) for shard, row in rows], np.uint64),
        np.array([shard.photo_number(row) for shard, row in rows], np.uint32),
    )


def _best_of_query(found: Candidates, shards: Sequence[Identified], k: int) -> Candidates:
    best: dict[str, tuple[float, int, int]] = {}
    columns = (found.scores.tolist(), found.shards.tolist(), found.rows.tolist())
    for number, (score, position, row) in enumerate(zip(*columns, strict=True)):
        shard = shards[position]
        listing_id, version = shard.listing_id(row), shard.version(row)
        known = best.get(listing_id)
        if known is None:
            if len(best) == k:
                break
        elif known[1] >= version:
            continue
        best[listing_id] = score, version, number
    ranked = sorted(best.items(), key=lambda item: (-item[1][0], item[0]))
    return found.taken(np.array([number for _, (_, _, number) in ranked], np.int64))
