"""What a manifest says of a shard's index: all that a reader needs to know to open it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class IndexSpec:
    """How an index was built; the kind decides what the rest may be."""

    kind: str
    """A name that ``shashin.shards.kinds.registry`` knows."""
    metric: str
    stored_type: str
    dimensions: int
    parameters: Mapping[str, int]

    def __str__(self) -> str:
        return f"{self.kind} {self.metric} {self.stored_type}"
