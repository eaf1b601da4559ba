"""Rows as columns: numpy arrays with dictionary-encoded strings, so that filters work the same on
open and sealed shards.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import numpy.typing as npt

from shashin.shards.format.row import Row, RowAttributes

CODED_COLUMNS = ("category", "brand", "currency")
"""The dictionary-encoded string columns."""


@dataclass(frozen=True)
class Coded:
    """A dictionary-encoded column of strings: ``codes`` (n,) int32 index ``values``."""

    codes: npt.NDArray[np.int32]
    values: Sequence[str]

    def codes_of(self, strings: Iterable[str]) -> npt.NDArray[np.int32]:
        """Return the codes of those of the strings that occur in the column."""
        known = self._code_of
        codes = sorted(known[string] for string in set(strings) if string in known)
        return np.array(codes, dtype=np.int32)

    @cached_property
    def _code_of(self) -> dict[str, int]:
        return {value: code for code, value in enumerate(self.values)}


@dataclass(frozen=True)
class Columns:
    """The columns of a shard's first n rows, which masks are computed from; each array is (n,)."""

    group: npt.NDArray[np.uint32]
    """Rows of one listing share a number, regardless of version."""
    version: npt.NDArray[np.uint64]
    price_minor: npt.NDArray[np.int64]
    listed_at: npt.NDArray[np.int64]
    category: Coded
    brand: Coded
    currency: Coded


class Rows(Protocol):
    """The interface of a shard's rows, open or sealed."""

    def __len__(self) -> int: ...

    @property
    def listings(self) -> int:
        """Number of distinct listings."""
        ...

    def columns(self, count: int) -> Columns:
        """Return the columns of the first ``count`` rows."""
        ...

    def row(self, number: int) -> Row:
        """Return one row."""
        ...

    def listing_id(self, number: int) -> str:
        """Return the listing of a row."""
        ...

    def version(self, number: int) -> int:
        """Return the version of a row."""
        ...

    def photo_number(self, number: int) -> int:
        """Return the photo number of a row."""
        ...

    def attributes(self, number: int) -> RowAttributes:
        """Return the attributes of a row."""
        ...

    def rows_of(self, listing_id: str) -> npt.NDArray[np.int64]:
        """Return the numbers of a listing's rows, all versions."""
        ...

    def versions_of(self, numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.uint64]:
        """Return the versions of rows."""
        ...
