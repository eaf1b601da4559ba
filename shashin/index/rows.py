"""The rows of a shard: whose vector it is, in which version, and what a search may filter on.

Row i belongs to key i of the shard's index. The filterable columns are numpy arrays with strings
as codes of a dictionary, in the open shard as in the sealed one, so one filter serves both.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.ipc

from shashin.errors import CorruptShard, UnknownFormat

NO_TIME = np.iinfo(np.int64).min
"""listed_at of a row without one."""

MAX_PHOTO_NUMBER = np.iinfo(np.uint16).max

FORMAT = b"shashin.rows/1"

_SCHEMA = pa.schema(
    [
        pa.field("listing_id", pa.string(), nullable=False),
        pa.field("listing_hash", pa.uint64(), nullable=False),
        pa.field("listing_group", pa.uint32(), nullable=False),
        pa.field("version", pa.uint64(), nullable=False),
        pa.field("photo_number", pa.uint16(), nullable=False),
        pa.field("category", pa.dictionary(pa.int32(), pa.string()), nullable=False),
        pa.field("brand", pa.dictionary(pa.int32(), pa.string()), nullable=False),
        pa.field("price_minor", pa.int64(), nullable=False),
        pa.field("currency", pa.dictionary(pa.int32(), pa.string()), nullable=False),
        pa.field("listed_at", pa.int64(), nullable=False),
    ],
    metadata={b"format": FORMAT},
)
_CODED = ("category", "brand", "currency")


@dataclass(frozen=True)
class RowAttributes:
    """The attributes of one row."""

    category: str = ""
    brand: str = ""
    price_minor: int = 0
    currency: str = ""
    """ISO 4217; empty without a price."""
    listed_at: int = NO_TIME
    """Unix seconds."""


@dataclass(frozen=True)
class Row:
    """One row: one photo of one version of a listing."""

    listing_id: str
    version: int
    photo_number: int
    attributes: RowAttributes


def listing_hash(listing_id: str) -> int:
    """Return the 64-bit hash by which a sealed shard finds a listing's rows."""
    return int.from_bytes(hashlib.blake2b(listing_id.encode(), digest_size=8).digest(), "little")


@dataclass(frozen=True)
class Coded:
    """A column of strings: ``codes`` (n,) int32 into ``values``."""

    codes: npt.NDArray[np.int32]
    values: Sequence[str]

    def codes_of(self, wanted: Iterable[str]) -> npt.NDArray[np.int32]:
        """Return the codes of the wanted strings that occur at all."""
        wanted = set(wanted)
        return np.array([i for i, v in enumerate(self.values) if v in wanted], dtype=np.int32)


@dataclass(frozen=True)
class Columns:
    """The numeric view of a shard's first n rows that masks are computed from; each array is (n,)."""

    group: npt.NDArray[np.uint32]
    """Rows of one listing share a number, whatever their version."""
    version: npt.NDArray[np.uint64]
    price_minor: npt.NDArray[np.int64]
    listed_at: npt.NDArray[np.int64]
    category: Coded
    brand: Coded
    currency: Coded


class Rows(Protocol):
    """What a shard needs of its rows, open or sealed."""

    def __len__(self) -> int: ...

    @property
    def listings(self) -> int:
        """How many different listings the rows belong to."""
        ...

    def columns(self) -> Columns:
        """Return the columns of all rows that exist now."""
        ...

    def row(self, number: int) -> Row:
        """Return one row."""
        ...

    def rows_of(self, listing_id: str) -> npt.NDArray[np.int64]:
        """Return the numbers of a listing's rows, all versions."""
        ...

    def versions_of(self, numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.uint64]:
        """Return the versions of rows."""
        ...


class _Growing:
    """A numeric column that doubles when it is full."""

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
    """Rows that are still being added, by one writer; what is read is a stable prefix."""

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
        self._coded = {name: _GrowingCodes() for name in _CODED}

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def listings(self) -> int:
        """How many different listings the rows belong to."""
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
        """Whether this photo of this version is here already."""
        return any(
            self._rows[n].version == version and self._rows[n].photo_number == photo_number
            for n in self._of.get(listing_id, ())
        )

    def columns(self) -> Columns:
        """Return the columns of all rows that exist now."""
        n = len(self._rows)
        return Columns(
            group=self._numeric["group"].data[:n],
            version=self._numeric["version"].data[:n],
            price_minor=self._numeric["price_minor"].data[:n],
            listed_at=self._numeric["listed_at"].data[:n],
            **{
                name: Coded(codes.column.data[:n], codes.values)
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

    def write(self, path: Path) -> None:
        """Write ``rows.arrow``: the same rows give the same bytes."""
        columns = self.columns()
        coded = {
            name: pa.DictionaryArray.from_arrays(
                pa.array(column.codes), pa.array(list(column.values), pa.string())
            )
            for name, column in (
                ("category", columns.category),
                ("brand", columns.brand),
                ("currency", columns.currency),
            )
        }
        table = pa.table(
            {
                "listing_id": pa.array([r.listing_id for r in self._rows], pa.string()),
                "listing_hash": pa.array(
                    [listing_hash(r.listing_id) for r in self._rows], pa.uint64()
                ),
                "listing_group": pa.array(columns.group),
                "version": pa.array(columns.version),
                "photo_number": pa.array([r.photo_number for r in self._rows], pa.uint16()),
                "category": coded["category"],
                "brand": coded["brand"],
                "price_minor": pa.array(columns.price_minor),
                "currency": coded["currency"],
                "listed_at": pa.array(columns.listed_at),
            },
            schema=_SCHEMA,
        ).combine_chunks()
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, _SCHEMA) as writer:
            # One batch, so that a reader maps each column as one array.
            writer.write_table(table, max_chunksize=max(1, len(self._rows)))


class SealedRows:
    """Rows of a sealed shard, memory-mapped from ``rows.arrow``.

    Raises:
        UnknownFormat: when the file's format is not one that this reader knows.
        CorruptShard: when it is not a rows file at all, or cannot be read.
    """

    def __init__(self, path: Path) -> None:
        try:
            reader = pa.ipc.open_file(pa.memory_map(str(path), "r"))
            found = (reader.schema.metadata or {}).get(b"format")
            if found != FORMAT:
                raise UnknownFormat(
                    f"{path} has rows format {found!r}; this version reads {FORMAT!r}: upgrade "
                    "the reader or seal the shard anew"
                )
            if not reader.schema.equals(_SCHEMA):
                raise CorruptShard(
                    f"{path} has other columns than {FORMAT!r} says: seal the shard anew"
                )
            table = reader.read_all().combine_chunks()
        except (pa.ArrowInvalid, OSError) as error:
            raise CorruptShard(f"{path} is not an arrow file: {error}") from error
        self._n = table.num_rows
        self._listing_ids = _only_chunk(table, "listing_id")
        hashes = _numpy(table, "listing_hash")
        self._by_hash = np.argsort(hashes, kind="stable")
        self._sorted_hashes = hashes[self._by_hash]
        self._photo_numbers = _numpy(table, "photo_number")
        coded = {}
        for name in _CODED:
            chunk = _only_chunk(table, name)
            coded[name] = Coded(chunk.indices.to_numpy(), chunk.dictionary.to_pylist())
        group = _numpy(table, "listing_group")
        self._columns = Columns(
            group=group,
            version=_numpy(table, "version"),
            price_minor=_numpy(table, "price_minor"),
            listed_at=_numpy(table, "listed_at"),
            **coded,
        )
        self._listings = int(group.max()) + 1 if self._n else 0

    def __len__(self) -> int:
        return int(self._n)

    @property
    def listings(self) -> int:
        """How many different listings the rows belong to."""
        return self._listings

    def columns(self) -> Columns:
        """Return the columns of all rows."""
        return self._columns

    def row(self, number: int) -> Row:
        """Return one row."""
        columns = self._columns
        return Row(
            listing_id=self._listing_ids[number].as_py(),
            version=int(columns.version[number]),
            photo_number=int(self._photo_numbers[number]),
            attributes=RowAttributes(
                category=columns.category.values[columns.category.codes[number]],
                brand=columns.brand.values[columns.brand.codes[number]],
                price_minor=int(columns.price_minor[number]),
                currency=columns.currency.values[columns.currency.codes[number]],
                listed_at=int(columns.listed_at[number]),
            ),
        )

    def rows_of(self, listing_id: str) -> npt.NDArray[np.int64]:
        """Return the numbers of a listing's rows."""
        wanted = np.uint64(listing_hash(listing_id))
        first = np.searchsorted(self._sorted_hashes, wanted, side="left")
        last = np.searchsorted(self._sorted_hashes, wanted, side="right")
        candidates = np.sort(self._by_hash[first:last])
        # Two listings may share a hash: the id decides.
        return np.array(
            [n for n in candidates if self._listing_ids[int(n)].as_py() == listing_id],
            dtype=np.int64,
        )

    def versions_of(self, numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.uint64]:
        """Return the versions of rows."""
        versions: npt.NDArray[np.uint64] = self._columns.version[numbers]
        return versions


def _only_chunk(table: pa.Table, name: str) -> pa.Array:
    column = table.column(name)
    return column.chunk(0) if column.num_chunks else pa.array([], column.type)


def _numpy(table: pa.Table, name: str) -> npt.NDArray[Any]:
    array: npt.NDArray[Any] = _only_chunk(table, name).to_numpy()
    return array
