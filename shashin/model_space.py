"""The model space: which model's vectors, and how long they are. Vectors of two spaces never mix."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ModelSpace:
    """One model's vectors; what is searched, sealed or asked for belongs to exactly one."""

    model_id: str
    dimensions: int
    """Length of every vector."""

    def __str__(self) -> str:
        return f"{self.model_id} ({self.dimensions} dimensions)"
