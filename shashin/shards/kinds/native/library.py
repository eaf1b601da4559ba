"""Calls of the compiled library. Arrays are passed as they are: a caller keeps them alive.

A call releases the interpreter's lock, and any number may run at once.
"""

from __future__ import annotations

import ctypes
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from operator import is_
from typing import Any

import numpy as np
import numpy.typing as npt

from shashin.shards.format.columns import Identities
from shashin.shards.kinds.native.build import LIBRARY, source_hash
from shashin.shards.kinds.protocol import Hits, RowMask, StackHits, Vectors

CHUNK_DIMENSIONS = 64
"""Codes are padded to a multiple of so many dimensions."""


class _Quantizer(ctypes.Structure):
    _fields_ = (
        ("rotation", ctypes.c_void_p),
        ("centroids", ctypes.c_void_p),
        ("dimensions", ctypes.c_int32),
        ("lists", ctypes.c_int32),
    )


class _Run(ctypes.Structure):
    _fields_ = (
        ("starts", ctypes.c_void_p),
        ("codes", ctypes.c_void_p),
        ("scales", ctypes.c_void_p),
        ("signs", ctypes.c_void_p),
        ("sign_scales", ctypes.c_void_p),
        ("rows", ctypes.c_void_p),
        ("members", ctypes.c_void_p),
        ("member", ctypes.c_int32),
        ("probes", ctypes.c_int32),
    )


class _Identities(ctypes.Structure):
    _fields_ = (
        ("id_numbers", ctypes.c_void_p),
        ("id_starts", ctypes.c_void_p),
        ("id_bytes", ctypes.c_void_p),
        ("versions", ctypes.c_void_p),
        ("photo_numbers", ctypes.c_void_p),
    )


class _Listed(ctypes.Structure):
    _fields_ = (
        ("quantizer", ctypes.c_void_p),
        ("runs", ctypes.c_void_p),
        ("members", ctypes.c_void_p),
        ("shards", ctypes.c_void_p),
        ("positions", ctypes.c_void_p),
        ("run_count", ctypes.c_int32),
    )


class _Member(ctypes.Structure):
    _fields_ = (
        ("vectors", ctypes.c_void_p),
        ("flags", ctypes.c_void_p),
        ("allowed", ctypes.c_void_p),
        ("groups", ctypes.c_void_p),
        ("replaced", ctypes.c_void_p),
        ("rows", ctypes.c_uint32),
    )


@dataclass(frozen=True, eq=False)
class Lists:
    """A quantizer as a search uses it."""

    rotation: Vectors
    """(dimensions, dimensions)."""
    centroids: Vectors
    """(lists, dimensions), rotated."""

    def __len__(self) -> int:
        return len(self.centroids)


@dataclass(frozen=True, eq=False)
class Run:
    """Codes list by list."""

    starts: npt.NDArray[np.uint32]
    """(lists + 1,): where each list starts."""
    codes: npt.NDArray[np.uint8] | None
    """(n, code bytes); None if rows are scored by their vectors."""
    scales: npt.NDArray[np.float32] | None
    """(n,), of codes."""
    signs: npt.NDArray[np.uint64]
    """(n, sign words)."""
    sign_scales: npt.NDArray[np.float32]
    """(n,)."""
    rows: npt.NDArray[np.uint32] | None
    """(n,): the row of its member; None if each is where it is in the run."""
    probes: int
    """How many lists a search for 10 rows has to read."""
    member: int = 0
    """Whose codes these are, if ``members`` is None."""
    members: npt.NDArray[np.uint32] | None = None
    """(n,): whose code each is."""

    @cached_property
    def counts(self) -> Mapping[int, int]:
        """How many codes it has of each member."""
        if self.members is None:
            return {self.member: len(self)}
        numbers, counts = np.unique(self.members, return_counts=True)
        return dict(zip(numbers.tolist(), counts.tolist(), strict=True))

    def __len__(self) -> int:
        return len(self.sign_scales)


@dataclass(frozen=True, eq=False)
class Member:
    """What codes refer to; arrays are (rows, ...)."""

    vectors: npt.NDArray[np.float16]
    """(rows, dimensions)."""
    flags: npt.NDArray[np.uint8]
    """0 if a row may be found; read without a copy, so a change counts at once."""
    groups: npt.NDArray[np.uint32]
    """Rows of one listing share a number."""
    replaced: npt.NDArray[np.uint32] | None = None
    """With how many rows a newer version replaces a row, 0 if none does; None if flags say it."""


def _loaded() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(str(LIBRARY))
    except OSError as error:
        raise ImportError(
            f"{LIBRARY} cannot be loaded ({error}): run `make install`, or "
            "`python -m shashin.shards.kinds.native.build`"
        ) from error
    library.source_hash.restype = ctypes.c_char_p
    if library.source_hash().decode() != source_hash():
        raise ImportError(
            f"{LIBRARY} was compiled from another source: run `make install`, or "
            "`python -m shashin.shards.kinds.native.build`"
        )
    pointer, integer = ctypes.c_void_p, ctypes.c_int32
    library.search.argtypes = (
        *(pointer, pointer, integer, pointer, pointer, integer, integer, integer),
        *(ctypes.c_double, integer, pointer, pointer, pointer, pointer),
    )
    library.search_exactly.argtypes = (
        *(pointer, integer, integer, pointer, integer, integer, integer),
        *(pointer, pointer, pointer, pointer),
    )
    library.list_ranks.argtypes = (
        *(pointer, pointer, pointer, pointer, integer, integer, integer),
        *(pointer, pointer),
    )
    library.best_hits.argtypes = (
        *([pointer] * 6),
        *(integer, integer, pointer, pointer, pointer, ctypes.c_int64),
    )
    library.search_listings.argtypes = (
        *(pointer, pointer, integer, integer, integer, ctypes.c_double, integer, integer),
        *(pointer, ctypes.c_int64),
    )
    library.scale.argtypes = (pointer, ctypes.c_int64, integer, pointer)
    library.encode.argtypes = (pointer, ctypes.c_int64, integer, *([pointer] * 4))
    library.encode.restype = None
    library.encode_signs.argtypes = (pointer, pointer, ctypes.c_int64, integer, pointer, pointer)
    library.merge.argtypes = (pointer, integer, pointer, *([integer] * 3), *([pointer] * 7))
    library.merge.restype = ctypes.c_uint32
    return library


_Byte = ctypes.c_char

_NOT_SCALED = {
    1: "has values that are not finite",
    2: "has a vector that is all zeros: cosine similarity is undefined",
}

_LIBRARY = _loaded()


def use_level(level: int) -> int:
    """Use at most these instructions: 0 any CPU's, 1 AVX2, 2 AVX-512; returns what is used."""
    return int(_LIBRARY.use_level(level))


LEVEL = use_level(2)
"""The instructions of this CPU."""


class Searcher:
    """Searches runs of one quantizer, and the members that they refer to."""

    def __init__(self, lists: Lists, runs: Sequence[Run], members: Sequence[Member]) -> None:
        self.lists = lists
        self.runs = tuple(runs)
        self.members = tuple(members)
        self._quantizer = _quantizer(lists)
        self._runs = _runs(self.runs)
        self._members = (_Member * len(members))(*map(_member, members))
        self._last_listed: tuple[tuple[Any, ...], _Listed] | None = None

    def search(
        self,
        queries: Vectors,
        k: int,
        *,
        candidates: int,
        factor: float = 1.0,
        allowed: Mapping[int, RowMask] | None = None,
        filtered: bool = False,
        more: Sequence[tuple[Member, Run]] = (),
    ) -> StackHits:
        """Return the nearest row of each of up to ``k`` groups, for each query (m, dimensions).

        ``factor`` times the probes of each run are read, and ``candidates`` are compared by their float16
        vectors. ``allowed`` has a flag for each row of some members, by number. ``filtered`` says that
        many rows may not be found, and more is read then. ``more`` is searched as well: members that
        have the numbers after the others.
        """
        found = _empty(len(queries), k)
        queries = np.ascontiguousarray(queries, dtype=np.float32)
        members = self._with(more, allowed)
        runs = _joined(self._runs, _runs(self._numbered(more))) if more else self._runs
        status = _LIBRARY.search(
            ctypes.addressof(self._quantizer),
            ctypes.addressof(runs),
            len(runs),
            ctypes.addressof(members),
            _pointer(queries),
            len(queries),
            k,
            max(candidates, k),
            factor,
            filtered,
            *_outputs(found),
        )
        return _checked(found, status)

    def search_listings(
        self,
        queries: Vectors,
        k: int,
        *,
        groups: int,
        listings: Listings,
        positions: npt.NDArray[np.int64],
        candidates: int,
        factor: float = 1.0,
        allowed: Mapping[int, RowMask] | None = None,
        filtered: bool = False,
        more: Sequence[tuple[Member, Run]] = (),
    ) -> tuple[Hits, list[int]]:
        """Return ``listings.best(k)`` of what ``search`` finds with ``groups`` as its k, in one call.

        ``positions`` are those of the shards of all members. Returns also how many rows were found for each
        query.
        """
        queries = np.ascontiguousarray(queries, dtype=np.float32)
        members = self._with(more, allowed)
        runs = _joined(self._runs, _runs(self._numbered(more))) if more else self._runs
        listed = self._listed(runs, members, listings, positions)
        count = len(queries)
        hits_begin = 8 * (2 * count + 1)
        ids_begin = hits_begin + _HIT.itemsize * count * min(k, groups)
        room = _ID_BYTES * count * min(k, groups)
        while True:
            out = np.empty(ids_begin + room, np.uint8)
            status = _LIBRARY.search_listings(
                ctypes.addressof(listed),
                _pointer(queries),
                count,
                groups,
                max(candidates, groups),
                factor,
                filtered,
                k,
                _pointer(out),
                room,
            )
            if status:
                raise MemoryError("no memory for a search")
            numbers = out[:hits_begin].view(np.int64).tolist()
            if numbers[-1] <= room:
                break
            room = numbers[-1]
        kept = numbers[:count]
        hits = out[hits_begin : hits_begin + _HIT.itemsize * sum(kept)].view(_HIT)
        ids = out[ids_begin : ids_begin + numbers[-1]].tobytes()
        return _hits_of(kept, hits, ids), numbers[count : 2 * count]

    def search_exactly(
        self,
        queries: Vectors,
        k: int,
        *,
        candidates: int,
        allowed: Mapping[int, RowMask] | None = None,
        more: Sequence[tuple[Member, Run]] = (),
    ) -> StackHits:
        """Compare queries with every row; otherwise as ``search``."""
        found = _empty(len(queries), k)
        queries = np.ascontiguousarray(queries, dtype=np.float32)
        members = self._with(more, allowed)
        status = _LIBRARY.search_exactly(
            ctypes.addressof(members),
            len(members),
            queries.shape[1],
            queries.ctypes.data,
            len(queries),
            k,
            max(candidates, k),
            *_outputs(found),
        )
        return _checked(found, status)

    def _listed(
        self, runs: Any, members: Any, listings: Listings, positions: npt.NDArray[np.int64]
    ) -> _Listed:
        """Return what a search of listings reads; as before, if that is the same."""
        what = runs, members, listings, positions
        known = self._last_listed
        if known is not None and all(map(is_, known[0], what)):
            return known[1]
        listed = _Listed(
            ctypes.addressof(self._quantizer),
            ctypes.addressof(runs),
            ctypes.addressof(members),
            listings.address,
            _address(positions, np.int64),
            len(runs),
        )
        if members is self._members:  # those with open rows are others for each search
            self._last_listed = what, listed
        return listed

    def _numbered(self, more: Sequence[tuple[Member, Run]]) -> list[Run]:
        first = len(self.members)
        return [replace(run, member=first + i) for i, (_, run) in enumerate(more)]

    def _with(
        self, more: Sequence[tuple[Member, Run]], allowed: Mapping[int, RowMask] | None
    ) -> Any:
        if not more and allowed is None:
            return self._members
        members = _joined(self._members, [_member(member) for member, _ in more])
        for number, mask in (allowed or {}).items():
            assert len(mask.flags) == members[number].rows
            members[number].allowed = _address(mask.flags, np.bool_)
        return members


def list_ranks(
    lists: Lists, run: Run, members: Sequence[Member], queries: Vectors, k: int, *, candidates: int
) -> npt.NDArray[np.uint32]:
    """Return for each of the ``k`` nearest rows of each query how many lists have to be read, (n,)."""
    queries = np.ascontiguousarray(queries, dtype=np.float32)
    ranks = np.zeros((len(queries), k), np.uint32)
    counts = np.zeros(len(queries), np.int32)
    quantizer, runs = _quantizer(lists), _runs([run])
    packed = (_Member * len(members))(*map(_member, members))
    status = _LIBRARY.list_ranks(
        ctypes.addressof(quantizer),
        ctypes.addressof(runs),
        ctypes.addressof(packed),
        queries.ctypes.data,
        len(queries),
        k,
        max(candidates, k),
        ranks.ctypes.data,
        counts.ctypes.data,
    )
    if status:
        raise MemoryError("no memory for a search")
    used: npt.NDArray[np.uint32] = ranks[np.arange(k) < counts[:, None]]
    return used


def unit_vectors(numbers: array[float], dimensions: int) -> Vectors:
    """Return float32 vectors, one after another, scaled to unit length: (m, dimensions).

    Raises:
        ValueError: saying what is wrong with one: it is not finite, or all zeros.
    """
    address, count = numbers.buffer_info()
    scaled = np.empty((count // dimensions, dimensions), np.float32)
    status = _LIBRARY.scale(address, len(scaled), dimensions, _pointer(scaled))
    if status:
        raise ValueError(_NOT_SCALED[status])
    return scaled


def code_bytes(dimensions: int) -> int:
    """Return the length of a code."""
    return int(_LIBRARY.code_bytes(dimensions))


def sign_words(dimensions: int) -> int:
    """Return how many 64-bit words have the signs of a row."""
    return int(_LIBRARY.sign_words(dimensions))


@dataclass(frozen=True, eq=False)
class Codes:
    """What a search reads of rows, in their order."""

    codes: npt.NDArray[np.uint8]
    """(n, code bytes)."""
    scales: npt.NDArray[np.float32]
    """(n,)."""
    signs: npt.NDArray[np.uint64]
    """(n, sign words)."""
    sign_scales: npt.NDArray[np.float32]
    """(n,)."""

    @classmethod
    def empty(cls, count: int, dimensions: int) -> Codes:
        """Return arrays of so many rows, to be filled."""
        return cls(
            np.empty((count, code_bytes(dimensions)), np.uint8),
            np.empty(count, np.float32),
            np.empty((count, sign_words(dimensions)), np.uint64),
            np.empty(count, np.float32),
        )

    def of(self, rows: slice) -> Codes:
        """Return a view of some rows."""
        return Codes(self.codes[rows], self.scales[rows], self.signs[rows], self.sign_scales[rows])

    def fill(self, residuals: Vectors) -> None:
        """Encode rotated residuals, (n, dimensions)."""
        residuals = np.ascontiguousarray(residuals, dtype=np.float32)
        _LIBRARY.encode(residuals.ctypes.data, *residuals.shape, *self._addresses())

    def _addresses(self) -> tuple[int, ...]:
        arrays = (self.codes, self.scales, self.signs, self.sign_scales)
        return tuple(array.ctypes.data for array in arrays)


def signs_of(
    vectors: npt.NDArray[np.float16], rotation: Vectors
) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.float32]]:
    """Return the signs of vectors (n, dimensions) after their rotation, and their scales."""
    count, dimensions = vectors.shape
    signs = np.empty((count, sign_words(dimensions)), np.uint64)
    scales = np.empty(count, np.float32)
    status = _LIBRARY.encode_signs(
        _address(rotation, np.float32),
        _address(vectors, np.float16),
        count,
        dimensions,
        signs.ctypes.data,
        scales.ctypes.data,
    )
    if status:
        raise MemoryError("no memory to add rows")
    return signs, scales


def merged(runs: Sequence[Run], lists: int, gone: npt.NDArray[np.bool_], *, probes: int) -> Run:
    """Return one run with the codes of several, list by list in their order.

    ``gone`` (members,) are the members whose codes are left out.
    """
    assert runs[0].codes is not None
    count, width, words = sum(map(len, runs)), runs[0].codes.shape[1], runs[0].signs.shape[1]
    starts = np.empty(lists + 1, np.uint32)
    codes = np.empty((count, width), np.uint8)
    scales = np.empty(count, np.float32)
    signs = np.empty((count, words), np.uint64)
    sign_scales = np.empty(count, np.float32)
    rows = np.empty(count, np.uint32)
    members = np.empty(count, np.uint32)
    packed = _runs(runs)
    outputs = (starts, codes, scales, signs, sign_scales, rows, members)
    kept = _LIBRARY.merge(
        ctypes.addressof(packed),
        len(runs),
        _address(gone, np.bool_),
        lists,
        width,
        words,
        *(_pointer(array) for array in outputs),
    )
    return Run(
        starts,
        codes[:kept],
        scales[:kept],
        signs[:kept],
        sign_scales[:kept],
        rows[:kept],
        probes,
        members=members[:kept],
    )


_HIT = np.dtype(
    {
        "names": ["shard", "row", "version", "score", "id_length", "photo_number"],
        "formats": ["i8", "i8", "u8", "f4", "u4", "u4"],
        "itemsize": 40,
    }
)
_ID_BYTES = 48
"""Room for an id; where ids are longer, they are copied a second time."""


class Listings:
    """The listings of the rows of shards, by the position of a shard."""

    def __init__(self, shards: Sequence[Identities], packed: Any = None) -> None:
        self._shards = tuple(shards)
        if packed is None:
            packed = (_Identities * len(shards))(*map(_identities, shards))
        self._packed = packed

    @property
    def address(self) -> int:
        """Where the library finds them, as long as this object exists."""
        return ctypes.addressof(self._packed)

    def updated(self, shards: Mapping[int, Identities]) -> Listings:
        """Return these with others for some shards, by position."""
        if not shards:
            return self
        packed = type(self._packed).from_buffer_copy(self._packed)
        for position, shard in shards.items():
            packed[position] = _identities(shard)
        return Listings([shards.get(i, shard) for i, shard in enumerate(self._shards)], packed)

    def best(
        self,
        positions: npt.NDArray[np.int64],
        rows: npt.NDArray[np.int64],
        scores: npt.NDArray[np.float32],
        begins: npt.NDArray[np.int64],
        counts: npt.NDArray[np.int32],
        k: int,
    ) -> Hits:
        """Return the up to ``k`` nearest listings of each query, each at the nearest row of its newest
        version found, by descending score, then by id.

        What was found for a query, in any order, begins at ``begins`` (m,) of the arrays (n,) and has
        ``counts`` (m,) rows.
        """
        hits = np.empty(min(len(rows), len(counts) * k), _HIT)
        kept = np.empty(len(counts) + 1, np.int64)
        ids = np.empty(_ID_BYTES * len(hits), np.uint8)
        while True:
            status = _LIBRARY.best_hits(
                ctypes.addressof(self._packed),
                _address(positions, np.int64),
                _address(rows, np.int64),
                _address(scores, np.float32),
                _address(begins, np.int64),
                _address(counts, np.int32),
                len(counts),
                k,
                _pointer(hits),
                _pointer(kept),
                _pointer(ids),
                len(ids),
            )
            if status:
                raise MemoryError("no memory for the listings of a search")
            *of_queries, id_bytes = kept.tolist()
            if id_bytes <= len(ids):
                break
            ids = np.empty(id_bytes, np.uint8)
        hits = hits[: sum(of_queries)]
        return _hits_of(of_queries, hits, ids[:id_bytes].tobytes())


def _hits_of(counts: list[int], hits: npt.NDArray[np.void], ids: bytes) -> Hits:
    return Hits(
        counts,
        hits["shard"],
        hits["row"],
        hits["score"],
        ids,
        hits["id_length"],
        hits["version"],
        hits["photo_number"],
    )


def _quantizer(lists: Lists) -> _Quantizer:
    return _Quantizer(
        _address(lists.rotation, np.float32),
        _address(lists.centroids, np.float32),
        lists.centroids.shape[1],
        len(lists),
    )


def _identities(shard: Identities) -> _Identities:
    return _Identities(
        _address_or_none(shard.id_numbers, np.uint32),
        _address(shard.id_starts, np.int32),
        _address(shard.id_bytes, np.uint8),
        _address(shard.versions, np.uint64),
        _address(shard.photo_numbers, np.uint16),
    )


def _joined(structures: Any, more: Any) -> Any:
    """Return a copy of an array of structures with more at its end."""
    joined = (structures._type_ * (len(structures) + len(more)))()
    ctypes.memmove(joined, structures, ctypes.sizeof(structures))
    joined[len(structures) :] = more[:]
    return joined


def _runs(runs: Sequence[Run]) -> Any:
    return (_Run * len(runs))(
        *(
            _Run(
                _address(run.starts, np.uint32),
                _address_or_none(run.codes, np.uint8),
                _address_or_none(run.scales, np.float32),
                _address(run.signs, np.uint64),
                _address(run.sign_scales, np.float32),
                _address_or_none(run.rows, np.uint32),
                _address_or_none(run.members, np.uint32),
                run.member,
                run.probes,
            )
            for run in runs
        )
    )


def _member(member: Member) -> _Member:
    return _Member(
        _address(member.vectors, np.float16),
        _address(member.flags, np.uint8),
        None,
        _address(member.groups, np.uint32),
        _address_or_none(member.replaced, np.uint32),
        len(member.vectors),
    )


def _address(array: npt.NDArray[Any], dtype: npt.DTypeLike) -> int:
    assert array.dtype == dtype
    assert array.flags.c_contiguous
    return _pointer(array)


def _pointer(array: npt.NDArray[Any]) -> int:
    if array.flags.writeable and array.size:
        of_array: Any = array  # a buffer
        return ctypes.addressof(_Byte.from_buffer(of_array))  # a third of what the next line costs
    return array.ctypes.data


def _address_or_none(array: npt.NDArray[Any] | None, dtype: npt.DTypeLike) -> int | None:
    return None if array is None else _address(array, dtype)


def _empty(queries: int, k: int) -> StackHits:
    return StackHits(
        np.zeros((queries, k), np.uint32),
        np.zeros((queries, k), np.uint32),
        np.zeros((queries, k), np.float32),
        np.zeros(queries, np.int32),
    )


def _outputs(found: StackHits) -> tuple[int, ...]:
    outputs = (found.members, found.rows, found.scores, found.counts)
    return tuple(_pointer(array) for array in outputs)


def _checked(found: StackHits, status: int) -> StackHits:
    if status:
        raise MemoryError("no memory for a search")
    return found
