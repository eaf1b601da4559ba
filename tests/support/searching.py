"""Searches of shards, with the whole row of each hit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from shashin.serving.searched_shards import SearchedShards
from shashin.shards.format.row import Row
from shashin.shards.kinds.protocol import Vectors
from shashin.shards.row_filter import RowFilter
from shashin.shards.shard import Shard


@dataclass(frozen=True)
class FoundRow:
    """A hit."""

    row: Row
    score: float


def search_shards(
    shards: Sequence[Shard],
    queries: Vectors,
    k: int,
    row_filter: RowFilter | None = None,
    searched: SearchedShards | None = None,
) -> list[list[FoundRow]]:
    """Return the hits of each query (m, dimensions); by ``searched`` if these shards are served."""
    searched = searched or SearchedShards(shards)
    hits = searched.search(queries, k, row_filter or RowFilter())
    found = [
        FoundRow(shards[position].row(row), score)
        for position, row, score in zip(
            hits.shards.tolist(),
            hits.rows.tolist(),
            hits.scores.tolist(),
            strict=True,
        )
    ]
    ends = accumulate(hits.id_lengths.tolist(), initial=0)
    ids = [hits.ids[start:end].decode() for start, end in pairwise(ends)]
    assert ids == [hit.row.listing_id for hit in found]
    assert hits.versions.tolist() == [hit.row.version for hit in found]
    assert hits.photo_numbers.tolist() == [hit.row.photo_number for hit in found]
    return [found[of_query] for of_query in hits.slices()]
