"""The description of a shard's index in its manifest: all that a reader needs to open it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class IndexSpec:
    """How an index was built; valid values of the other fields depend on the kind."""

    kind: str
    """A name in ``shashin.shards.kinds.registry``."""
    metric: str
    stored_type: str
    dimensions: int
    parameters: Mapping[str, int]

    def __str__(self) -> str:
        return f"{self.kind} {self.metric} {self.stored_type}"
