"""Rows as columns: numpy arrays with dictionary-encoded strings, so that filters work the same on
open and sealed shards.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from shashin.shards.format.dictionary import Dictionary
from shashin.shards.format.row import Row, RowDetails

CODED_COLUMNS = ("category", "brand", "currency")
"""The dictionary-encoded string columns."""


@dataclass(frozen=True)
class Coded:
    """A dictionary-encoded column of strings: ``codes`` (n,) int32 are those of the dictionary's values."""

    codes: npt.NDArray[np.int32]
    dictionary: Dictionary

    def since(self, start: int) -> Coded:
        """Return the rows from a number on."""
        return Coded(self.codes[start:], self.dictionary)


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

    def since(self, start: int) -> Columns:
        """Return the columns of the rows from a number on."""
        if start == 0:
            return self
        return Columns(
            group=self.group[start:],
            version=self.version[start:],
            price_minor=self.price_minor[start:],
            listed_at=self.listed_at[start:],
            category=self.category.since(start),
            brand=self.brand.since(start),
            currency=self.currency.since(start),
        )


@dataclass(frozen=True, eq=False)
class Identities:
    """What identifies the rows of a shard."""

    id_starts: npt.NDArray[np.int32]
    """(ids + 1,): where each listing id starts, with the end of the last."""
    id_bytes: npt.NDArray[np.uint8]
    """Listing ids in UTF-8."""
    versions: npt.NDArray[np.uint64]
    """(n,)."""
    photo_numbers: npt.NDArray[np.uint16]
    """(n,)."""
    id_numbers: npt.NDArray[np.uint32] | None = None
    """(n,): which of the ids each row has; None if each has one of its own."""


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

    def identities(self, count: int) -> Identities:
        """Return what identifies the first ``count`` rows."""
        ...

    def row(self, number: int) -> Row:
        """Return one row."""
        ...

    def listing_id(self, number: int) -> str:
        """Return the listing of a row."""
        ...

    def details(self, number: int) -> RowDetails:
        """Return what of a row is shown with a hit."""
        ...

    def rows_of(self, listing_id: str) -> npt.NDArray[np.int64]:
        """Return the numbers of a listing's rows, all versions."""
        ...

    def versions_of(self, numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.uint64]:
        """Return the versions of rows."""
        ...
