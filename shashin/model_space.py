"""The model space: a model and its vector length. Vectors of different spaces never mix."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ModelSpace:
    """The vector space of one model; every shard and query belongs to exactly one."""

    model_id: str
    dimensions: int
    """Length of every vector."""

    def __str__(self) -> str:
        return f"{self.model_id} ({self.dimensions} dimensions)"
