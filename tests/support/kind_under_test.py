"""An index kind under test: indexes of it that are grown, or built, written and opened."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from shashin.shards.kinds.protocol import GrowingIndex, IndexKind, SearchableIndex, Vectors
from shashin.shards.kinds.registry import growing_kind, index_kind
from tests.support.made_shards import DIMENSIONS


@dataclass(frozen=True)
class Precision:
    """How closely a kind stores vectors whose components bfloat16 holds exactly."""

    vectors: float = 1e-6
    """Max difference of a stored component."""
    scores: float = 1e-5
    """Max difference of a score."""
    bytes_per_value: int = 2


PRECISIONS: dict[str, Precision] = {}
"""By name, of each kind that stores vectors more coarsely than the default."""


class KindUnderTest:
    """One kind, with helpers to make indexes of it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.precision = PRECISIONS.get(name, Precision())
        self.kind: IndexKind = index_kind(name)

    def grown(self, rows: Vectors) -> GrowingIndex:
        """Return an index that these rows were added to, and that can be searched and added to."""
        index = growing_kind(self.name).growing(DIMENSIONS)
        index.add(rows)
        return index

    @contextmanager
    def opened(self, rows: Vectors) -> Iterator[SearchableIndex]:
        """Build an index of rows, write it, and open what was written."""
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            builder = self.kind.builder(DIMENSIONS)
            builder.add(rows)
            builder.write(folder)
            yield self.kind.open(builder.spec, folder)
