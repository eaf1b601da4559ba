"""A search hit in a shard."""

from __future__ import annotations

from dataclasses import dataclass

from shashin.shards.format.row import Row


@dataclass(frozen=True)
class ShardHit:
    """A row and its score."""

    row: Row
    score: float
    """Cosine similarity."""
