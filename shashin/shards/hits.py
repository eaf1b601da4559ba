"""Search hits over several shards: which shard and row, and the best of them with each listing once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt


class Identified(Protocol):
    """Rows that say which listing they are of, and in which version."""

    def listing_id(self, number: int) -> str:
        """Return a row's listing."""
        ...

    def version(self, number: int) -> int:
        """Return a row's version of its listing."""
        ...


@dataclass(frozen=True)
class Candidates:
    """Rows of several shards with their scores, in any order."""

    shards: npt.NDArray[np.int64]
    """(n,): the position of each row's shard."""
    rows: npt.NDArray[np.int64]
    """(n,)."""
    scores: npt.NDArray[np.float32]
    """(n,): cosine similarities."""


@dataclass(frozen=True)
class Hits:
    """The hits of one query as columns, nearest first; each listing occurs once."""

    shards: list[int]
    """The position of each hit's shard."""
    rows: list[int]
    listing_ids: list[str]
    versions: list[int]
    scores: list[float]

    def __len__(self) -> int:
        return len(self.rows)


def best_listings(found: Candidates, shards: Sequence[Identified], k: int) -> Hits:
    """Return the up to ``k`` nearest listings, each with the nearest photo of its newest version found.

    Rows of equal score are taken in the order of shards and rows.
    """
    order = np.lexsort((found.rows, found.shards, -found.scores))
    positions, rows = found.shards[order].tolist(), found.rows[order].tolist()
    scores = found.scores[order].tolist()
    best: dict[str, tuple[float, int, int, int]] = {}
    for score, position, row in zip(scores, positions, rows, strict=True):
        shard = shards[position]
        listing_id, version = shard.listing_id(row), shard.version(row)
        known = best.get(listing_id)
        if known is None:
            if len(best) == k:
                break
        elif known[3] >= version:
            continue
        best[listing_id] = score, position, row, version
    ranked = sorted(best.items(), key=lambda item: (-item[1][0], item[0]))
    return Hits(
        shards=[position for _, (_, position, _, _) in ranked],
        rows=[row for _, (_, _, row, _) in ranked],
        listing_ids=[listing_id for listing_id, _ in ranked],
        versions=[version for _, (_, _, _, version) in ranked],
        scores=[score for _, (score, _, _, _) in ranked],
    )
