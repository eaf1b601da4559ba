"""The rows of an open shard."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from shashin.shards.format.columns import CODED_COLUMNS, Coded, Columns
from shashin.shards.format.row import Row


class _Growing:
    """A numeric column whose capacity doubles when full."""

    def __init__(self, dtype: npt.DTypeLike) -> None:
        self.data = np.zeros(1024, dtype=dtype)

    def put(self, position: int, value: int) -> None:
        if position >= len(self.data):
            self.data = np.concatenate([self.data, np.zeros_like(self.data)])
        self.data[position] = value


class _GrowingCodes:
    def __init__(self) -> None:
        self.column = _Growing(np.int32)
        self.values: list[str] = []
        self._code: dict[str, int] = {}

    def put(self, position: int, value: str) -> None:
        code = self._code.get(value)
        if code is None:
            code = self._code[value] = len(self.values)
            self.values.append(value)
        self.column.put(position, code)


class OpenRows:
    """Rows with one writer that appends; readers see a stable prefix."""

    def __init__(self) -> None:
        self._rows: list[Row] = []
        self._of: dict[str, list[int]] = {}
        self._group_of: dict[str, int] = {}
        self._numeric = {
            "group": _Growing(np.uint32),
            "version": _Growing(np.uint64),
            "price_minor": _Growing(np.int64),
            "listed_at": _Growing(np.int64),
        }
        self._coded = {name: _GrowingCodes() for name in CODED_COLUMNS}

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def listings(self) -> int:
        """Number of distinct listings."""
        return len(self._of)

    def append(self, row: Row) -> int:
        """Add a row; returns its number."""
        number = len(self._rows)
        group = self._group_of.setdefault(row.listing_id, len(self._group_of))
        attributes = row.attributes
        self._numeric["group"].put(number, group)
        self._numeric["version"].put(number, row.version)
        self._numeric["price_minor"].put(number, attributes.price_minor)
        self._numeric["listed_at"].put(number, attributes.listed_at)
        self._coded["category"].put(number, attributes.category)
        self._coded["brand"].put(number, attributes.brand)
        self._coded["currency"].put(number, attributes.currency)
        self._of.setdefault(row.listing_id, []).append(number)
        self._rows.append(row)
        return number

    def has(self, listing_id: str, version: int, photo_number: int) -> bool:
        """Whether there is a row for this photo of this version."""
        return any(
            self._rows[n].version == version and self._rows[n].photo_number == photo_number
            for n in self._of.get(listing_id, ())
        )

    def all(self) -> Sequence[Row]:
        """Return every row, in order."""
        return self._rows

    def columns(self, count: int) -> Columns:
        """Return the columns of the first ``count`` rows."""
        return Columns(
            group=self._numeric["group"].data[:count],
            version=self._numeric["version"].data[:count],
            price_minor=self._numeric["price_minor"].data[:count],
            listed_at=self._numeric["listed_at"].data[:count],
            **{
                name: Coded(codes.column.data[:count], codes.values)
                for name, codes in self._coded.items()
            },
        )

    def row(self, number: int) -> Row:
        """Return one row."""
        return self._rows[number]

    def rows_of(self, listing_id: str) -> npt.NDArray[np.int64]:
        """Return the numbers of a listing's rows."""
        return np.array(self._of.get(listing_id, ()), dtype=np.int64)

    def versions_of(self, numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.uint64]:
        """Return the versions of rows."""
        versions: npt.NDArray[np.uint64] = self._numeric["version"].data[numbers]
        return versions
