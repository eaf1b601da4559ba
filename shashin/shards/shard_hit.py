"""One row that a search over shards found."""

from __future__ import annotations

from dataclasses import dataclass

from shashin.shards.format.row import Row


@dataclass(frozen=True)
class ShardHit:
    """A row and how near it is."""

    row: Row
    score: float
    """Cosine similarity."""
