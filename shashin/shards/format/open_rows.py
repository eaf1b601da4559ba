"""The rows of an open shard, in columns: about 130 bytes a row and its photo's URI."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from shashin.shards.format.columns import CODED_COLUMNS, Coded, Columns, Identities
from shashin.shards.format.dictionary import Dictionary
from shashin.shards.format.row import Row, RowAttributes, RowDetails
from shashin.shards.growing_array import GrowingArray, GrowingStrings

_NONE = np.empty(0, dtype=np.int64)
_NONE.flags.writeable = False


class _GrowingCodes:
    def __init__(self) -> None:
        self.column = GrowingArray(np.int32)
        self.dictionary = Dictionary()

    def put(self, position: int, value: str) -> None:
        self.column.put(position, self.dictionary.add(value))

    def value(self, position: int) -> str:
        code = int(self.column.data[position])
        return self.dictionary.values[code]


class OpenRows:
    """Rows with one writer that appends; readers see a stable prefix."""

    def __init__(self) -> None:
        self._size = 0
        self._listing_ids = GrowingStrings(np.int32)
        """By group."""
        self._group_of: dict[str, int] = {}
        self._group = GrowingArray(np.uint32)
        self._version = GrowingArray(np.uint64)
        self._photo_number = GrowingArray(np.uint16)
        self._price_minor = GrowingArray(np.int64)
        self._listed_at = GrowingArray(np.int64)
        self._photo_uri = GrowingStrings()
        self._photo_hash = GrowingArray(np.uint64)
        self._coded = {name: _GrowingCodes() for name in CODED_COLUMNS}
        # The rows of a listing are a chain from its last row back; 0 ends it, n + 1 is row n.
        self._last = GrowingArray(np.uint32)
        """By group."""
        self._previous = GrowingArray(np.uint32)

    def __len__(self) -> int:
        return self._size

    @property
    def listings(self) -> int:
        """Number of distinct listings."""
        return len(self._listing_ids)

    def append(self, row: Row) -> int:
        """Add a row; returns its number."""
        number = self._size
        attributes = row.attributes
        group = self._group_of.get(row.listing_id)
        previous = 0
        if group is None:
            group = len(self._listing_ids)
        else:
            previous = self._last.data[group]
        self._previous.put(number, previous)
        self._group.put(number, group)
        self._version.put(number, row.version)
        self._photo_number.put(number, row.photo_number)
        self._price_minor.put(number, attributes.price_minor)
        self._listed_at.put(number, attributes.listed_at)
        self._photo_uri.append(row.photo_uri)
        self._photo_hash.put(number, row.photo_hash)
        for name, codes in self._coded.items():
            codes.put(number, getattr(attributes, name))
        self._last.put(group, number + 1)
        if group == len(self._listing_ids):
            self._listing_ids.append(row.listing_id)
            self._group_of[row.listing_id] = group
        self._size = number + 1
        return number

    def has(self, listing_id: str, version: int, photo_number: int) -> bool:
        """Whether there is a row for this photo of this version."""
        versions, photo_numbers = self._version.data, self._photo_number.data
        return any(
            versions[n] == version and photo_numbers[n] == photo_number
            for n in self._newest_first(listing_id)
        )

    def has_listing(self, listing_id: str) -> bool:
        """Whether the listing has a row."""
        return listing_id in self._group_of

    def listing_ids(self) -> Sequence[str]:
        """Return the listing of each group; takes a microsecond each."""
        return [self._listing_ids.get(group) for group in range(len(self._listing_ids))]

    def identities(self, count: int) -> Identities:
        """Return what identifies the first ``count`` rows."""
        ends, id_bytes = self._listing_ids.buffers(len(self._listing_ids))
        return Identities(
            ends,
            id_bytes,
            self._version.data[:count],
            self._photo_number.data[:count],
            id_numbers=self._group.data[:count],
        )

    def photo_numbers(self) -> npt.NDArray[np.uint16]:
        """Return the photo number of every row, (n,)."""
        numbers: npt.NDArray[np.uint16] = self._photo_number.data[: self._size]
        return numbers

    def photo_hashes(self) -> npt.NDArray[np.uint64]:
        """Return the hash of every row's photo, (n,)."""
        hashes: npt.NDArray[np.uint64] = self._photo_hash.data[: self._size]
        return hashes

    def photo_uris(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8]]:
        """Return where every row's URI starts, with the end of the last, and their UTF-8 bytes."""
        return self._photo_uri.buffers(self._size)

    def columns(self, count: int) -> Columns:
        """Return the columns of the first ``count`` rows."""
        return Columns(
            group=self._group.data[:count],
            version=self._version.data[:count],
            price_minor=self._price_minor.data[:count],
            listed_at=self._listed_at.data[:count],
            **{
                name: Coded(codes.column.data[:count], codes.dictionary)
                for name, codes in self._coded.items()
            },
        )

    def row(self, number: int) -> Row:
        """Return one row."""
        attributes, uri, photo_hash = self.details(number)
        return Row(
            listing_id=self.listing_id(number),
            version=self.version(number),
            photo_number=self.photo_number(number),
            attributes=RowAttributes(*attributes),
            photo_uri=uri.decode(),
            photo_hash=photo_hash,
        )

    def listing_id(self, number: int) -> str:
        """Return the listing of a row."""
        return self._listing_ids.get(int(self._group.data[number]))

    def version(self, number: int) -> int:
        """Return the version of a row."""
        return int(self._version.data[number])

    def photo_number(self, number: int) -> int:
        """Return the photo number of a row."""
        return int(self._photo_number.data[number])

    def details(self, number: int) -> RowDetails:
        """Return what of a row is shown with a hit."""
        coded = self._coded
        return (
            (
                coded["category"].value(number),
                coded["brand"].value(number),
                int(self._price_minor.data[number]),
                coded["currency"].value(number),
                int(self._listed_at.data[number]),
            ),
            self._photo_uri.encoded(number),
            int(self._photo_hash.data[number]),
        )

    def rows_of(self, listing_id: str) -> npt.NDArray[np.int64]:
        """Return the numbers of a listing's rows."""
        # Most listings that are hidden have no row here: each costs a look-up in a dictionary.
        if listing_id not in self._group_of:
            return _NONE
        return np.array([*self._newest_first(listing_id)][::-1], dtype=np.int64)

    def _newest_first(self, listing_id: str) -> Iterator[int]:
        group = self._group_of.get(listing_id)
        if group is not None:
            after = int(self._last.data[group])
            while after:
                yield after - 1
                after = int(self._previous.data[after - 1])

    def versions_of(self, numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.uint64]:
        """Return the versions of rows."""
        versions: npt.NDArray[np.uint64] = self._version.data[numbers]
        return versions
