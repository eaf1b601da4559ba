"""The exact answer to one query over all shards, found a block of rows at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from shashin.shards.hits import Candidates, best_of, joined
from shashin.shards.kinds.native.library import Listings
from shashin.shards.kinds.protocol import Hits, Vectors
from shashin.shards.row_filter import RowFilter
from shashin.shards.shard import Shard

BLOCK_ROWS = 512
"""A block takes about 0.2 ms at 128 dimensions, which is what a search that comes meanwhile may wait."""

_KEPT = 4
"""Times k that are kept of each block: an older version of a listing gives way to one further away."""


class ExactScan:
    """Compares one query (dimensions,) with every row that a search may find when the scan begins."""

    def __init__(
        self, shards: Sequence[Shard], query: Vectors, k: int, row_filter: RowFilter
    ) -> None:
        self._shards = shards
        self._query = query
        self._k = k
        self._row_filter = row_filter
        self._sizes = [len(shard.index) for shard in shards]
        self._found: list[Candidates] = []
        self._blocks = self._remaining()

    def _remaining(self) -> Iterator[None]:
        """Scan a block in each step."""
        for position, (shard, size) in enumerate(zip(self._shards, self._sizes, strict=True)):
            for begin in range(0, size, BLOCK_ROWS):
                block = range(begin, begin + BLOCK_ROWS)
                nearest = shard.nearest_in(
                    block, self._query, _KEPT * self._k, self._row_filter, rows=size
                )
                at = np.full(len(nearest.rows), position)
                self._found.append(Candidates(at, nearest.rows, nearest.scores))
                yield
            shard.drop_vectors()

    def step(self) -> bool:
        """Scan the next block; returns whether there was one left."""
        return next(self._blocks, self) is None

    def hits(self) -> Hits:
        """Return the hits, as a search returns them, of the blocks that were scanned."""
        listings = Listings([shard.identities() for shard in self._shards])
        return best_of([joined(self._found)], listings, self._k)
