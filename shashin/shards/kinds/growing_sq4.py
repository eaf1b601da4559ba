"""An index of kind ``ivf-sq4`` that grows: its rows are one list, and are scored by their signs and vectors.

A row is 20 bytes that every search reads and a float16 vector that it reads of few rows, at 128
dimensions. So adding costs microseconds, and a search a millisecond for a million rows: an open shard has
fewer. Lists and codes are made when the index is written.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from shashin.shards.format.index_spec import IndexSpec
from shashin.shards.growing_array import GrowingArray
from shashin.shards.kinds import ivf_sq4
from shashin.shards.kinds.native import library
from shashin.shards.kinds.native.library import Member, Run
from shashin.shards.kinds.protocol import Groups, Mask, Neighbours, OpenRows, Stack, Vectors
from shashin.shards.kinds.quantizer import Quantizer

_BLOCK = 8_192
"""Vectors that are handed to a builder at a time."""


class GrowingSq4Index:
    """Signs and float16 vectors that one thread appends. Lock-free: a search has the rows of its begin."""

    def __init__(self, kind: ivf_sq4.IvfSq4, dimensions: int) -> None:
        self._kind = kind
        self._dimensions = dimensions
        self.quantizer = Quantizer.flat(dimensions)
        self._stored = GrowingArray(ivf_sq4.STORED, width=dimensions)
        self._signs = GrowingArray(np.uint64, width=library.sign_words(dimensions))
        self._sign_scales = GrowingArray(np.float32)
        self._size = 0

    @property
    def spec(self) -> IndexSpec:
        """The description of what ``write`` writes."""
        return self._kind.builder(self._dimensions).spec

    @property
    def model_files(self) -> Sequence[str]:
        """Names of the files that ``write`` writes alike for many shards of a model."""
        return self._kind.builder(self._dimensions).model_files

    @property
    def memory_bytes(self) -> int:
        """Bytes in memory."""
        arrays = (self._stored, self._signs, self._sign_scales)
        return sum(array.data[: self._size].nbytes for array in arrays)

    def __len__(self) -> int:
        return self._size

    def add(self, vectors: Vectors) -> None:
        """Append vectors (n, dimensions) under the next keys."""
        stored = np.ascontiguousarray(vectors, dtype=ivf_sq4.STORED)
        signs, scales = library.signs_of(stored, self.quantizer.rotation)
        self._stored.extend(self._size, stored)
        self._signs.extend(self._size, signs)
        self._sign_scales.extend(self._size, scales)
        self._size += len(stored)

    def vectors(self, keys: npt.NDArray[np.int64]) -> Vectors:
        """Return the stored vectors of keys, (len(keys), dimensions) float32."""
        taken: Vectors = self._stored.data[keys].astype(np.float32)
        return taken

    def search(
        self, queries: Vectors, k: int, *, allowed: Mask | None, group: Groups, groups: int
    ) -> list[Neighbours]:
        """Return the nearest allowed row of each of up to ``k`` groups, for each query."""
        rows = len(group)
        return ivf_sq4.search_alone(
            self.quantizer,
            self.run(rows),
            self._stored.data[:rows],
            queries,
            k,
            allowed=allowed,
            group=group,
            groups=groups,
        )

    def run(self, rows: int) -> Run:
        """Return the signs of the first rows, as a search reads them."""
        return Run(
            starts=np.array([0, rows], np.uint32),
            codes=None,
            scales=None,
            signs=self._signs.data[:rows],
            sign_scales=self._sign_scales.data[:rows],
            rows=None,
            probes=1,
        )

    def member(self, opened: OpenRows) -> Member:
        """Return what the signs of ``run`` refer to."""
        rows = opened.rows
        return Member(
            self._stored.data[:rows],
            opened.flags[:rows],
            opened.group[:rows],
            opened.replaced[:rows],
        )

    def empty_stack(self) -> Stack:
        """Return a stack that it can be searched with."""
        return ivf_sq4.empty_stack(self.quantizer)

    def write(self, folder: Path) -> Sequence[str]:
        """Write the files of an index of its kind."""
        builder = self._kind.builder(self._dimensions)
        for start in range(0, self._size, _BLOCK):
            builder.add(self.vectors(np.arange(start, min(start + _BLOCK, self._size))))
        return builder.write(folder)
