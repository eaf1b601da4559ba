"""What a HEIC or AVIF photo takes to decode, from its header: ISO base media files (ISO/IEC 14496-12,
23008-12) with HEVC (ITU-T H.265) or AV1 images.

Decoders allocate what the coded images claim, whatever the file says about them, and a grid may name
one of them any number of times. So all claims are read here before a decoder sees the file.
"""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice

MAX_ITEMS = 2_000
"""Items of a file; a grid of 48 megapixels has 200."""

MAX_UNITS = 20_000
"""Units of all coded images together."""

_AVIF_BRANDS = frozenset({b"avif", b"avis"})
_HEIC_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"mif1", b"msf1", b"hevc", b"hevx"})
_CODED = frozenset({b"hvc1", b"av01"})
_KNOWN_ITEMS = _CODED | {b"grid", b"tmap", b"Exif", b"mime", b"uri "}
"""Types of items in photos from phones. Others, such as overlays, are derived without bounds."""

_SPS, _AV1_SEQUENCE = 33, 1


class HeifProblem(ValueError):
    """A file that cannot be a photo from a phone; the message says why."""


@dataclass(frozen=True)
class HeifStructure:
    """What the header of a HEIC or AVIF photo claims."""

    format: str
    """``HEIF`` or ``AVIF``, as Pillow names it."""
    pixels: int
    """Of the largest image of any kind in the file, coded or composed."""
    tile_pixels: int
    """Pixels that are decoded for all grids together."""
    deep: bool
    """Whether any image has more than 8 bits per channel."""
    exif: tuple[bytes, ...]
    """The EXIF data of every image."""
    subsampled: bool
    """Whether every coded image has fewer pixels for its colours (4:2:0 or 4:0:0)."""


def is_heif(data: bytes) -> bool:
    """Whether this is a HEIC or AVIF file."""
    return data[4:8] == b"ftyp" and data[8:12] in _AVIF_BRANDS | _HEIC_BRANDS


def heif_structure(data: bytes) -> HeifStructure:
    """Return what the header of a HEIC or AVIF file claims.

    Raises:
        HeifProblem: when it is damaged, or not a still photo.
    """
    try:
        return _Reader(data).structure()
    except (struct.error, IndexError, KeyError) as error:
        raise HeifProblem(f"its header is damaged ({error!r})") from None


@dataclass
class _Item:
    kind: bytes = b""
    extents: list[tuple[int, int]] = field(default_factory=list)
    """Offset and length."""
    in_idat: bool = False
    properties: list[int] = field(default_factory=list)


@dataclass
class _Coded:
    """What the headers of one coded image claim at most."""

    pixels: int = 0
    deep: bool = False
    subsampled: bool = True

    def claim(self, width: int, height: int, *, deep: bool, subsampled: bool) -> None:
        self.pixels = max(self.pixels, width * height)
        self.deep = self.deep or deep
        self.subsampled = self.subsampled and subsampled


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._items: dict[int, _Item] = defaultdict(_Item)
        self._properties: list[tuple[bytes, bytes]] = []
        self._idat = b""
        self._derived_from: dict[int, list[int]] = {}
        self._units = 0

    def structure(self) -> HeifStructure:
        for kind, start, end in _boxes(self._data, 0, len(self._data)):
            if kind == b"moov":
                raise HeifProblem("it is a sequence of images; expected a still photo")
            if kind == b"meta":
                self._read_meta(start + 4, end)
        self._check_kinds()
        coded = {
            number: self._coded(item) for number, item in self._items.items() if item.kind in _CODED
        }
        if not coded:
            raise HeifProblem("it has no image")
        composed = [
            struct.unpack_from(">II", body, 4) for kind, body in self._properties if kind == b"ispe"
        ]
        tile_pixels = 0
        for number, item in self._items.items():
            if item.kind == b"grid":
                tiles, size = self._grid(item)
                largest = max(self._tile(tile, coded) for tile in self._derived_from[number])
                tile_pixels += tiles * largest
                composed.append(size)
        kinds = {item.kind for item in self._items.values()}
        return HeifStructure(
            format="HEIF" if b"hvc1" in kinds else "AVIF",
            pixels=max(
                *(width * height for width, height in composed),
                *(image.pixels for image in coded.values()),
                0,
            ),
            tile_pixels=tile_pixels,
            exif=tuple(
                part
                for item in self._items.values()
                if item.kind == b"Exif"
                for part in _exif_parts(self._content(item))
            ),
            deep=any(image.deep for image in coded.values()),
            subsampled=all(image.subsampled for image in coded.values()),
        )

    def _check_kinds(self) -> None:
        unknown = {item.kind for item in self._items.values()} - _KNOWN_ITEMS
        if unknown:
            names = ", ".join(sorted(repr(kind.decode("latin-1")) for kind in unknown))
            raise HeifProblem(f"it has parts of the kind {names}; expected HEVC or AV1 images")

    @staticmethod
    def _tile(number: int, coded: dict[int, _Coded]) -> int:
        if number not in coded:
            raise HeifProblem("its grid is not made of images")
        return coded[number].pixels

    # --- the header -----------------------------------------------------------------------------

    def _read_meta(self, start: int, end: int) -> None:
        for kind, at, stop in _boxes(self._data, start, end):
            if kind == b"iinf":
                self._read_items(at, stop)
            elif kind == b"iloc":
                self._read_locations(at)
            elif kind == b"idat":
                self._idat = self._data[at:stop]
            elif kind == b"iref":
                self._read_references(at, stop)
            elif kind == b"iprp":
                self._read_properties(at, stop)
        if len(self._items) > MAX_ITEMS:
            raise HeifProblem(f"it has more than {MAX_ITEMS} parts")

    def _read_items(self, at: int, end: int) -> None:
        at += 6 if self._data[at] == 0 else 8
        for kind, start, _ in islice(_boxes(self._data, at, end), MAX_ITEMS + 1):
            version = self._data[start]
            if kind != b"infe" or version < 2:
                raise HeifProblem("its parts are described in an unknown form")
            wide = version > 2
            number = int.from_bytes(self._data[start + 4 : start + (8 if wide else 6)])
            kind_at = start + (10 if wide else 8)
            self._items[number].kind = self._data[kind_at : kind_at + 4]

    def _read_locations(self, at: int) -> None:
        data, version = self._data, self._data[at]
        sizes, more_sizes = data[at + 4], data[at + 5]
        offset_size, length_size, base_size = sizes >> 4, sizes & 15, more_sizes >> 4
        index_size = more_sizes & 15 if version else 0
        number_size = 2 if version < 2 else 4
        at += 6
        count, at = _number(data, at, number_size)
        for _ in range(min(count, MAX_ITEMS + 1)):
            number, at = _number(data, at, number_size)
            item = self._items[number]
            if version:
                method, at = _number(data, at, 2)
                if method & 15 > 1:
                    raise HeifProblem("its parts are stored in an unknown form")
                item.in_idat = method & 15 == 1
            at += 2  # where the data is: in this file
            base, at = _number(data, at, base_size)
            extents, at = _number(data, at, 2)
            for _ in range(extents):
                self._count_unit()
                _, at = _number(data, at, index_size)
                offset, at = _number(data, at, offset_size)
                length, at = _number(data, at, length_size)
                item.extents.append((base + offset, length))

    def _read_references(self, at: int, end: int) -> None:
        size = 2 if self._data[at] == 0 else 4
        for kind, start, _ in _boxes(self._data, at + 4, end):
            source, at = _number(self._data, start, size)
            count, at = _number(self._data, at, 2)
            if kind == b"dimg":
                found = []
                for _ in range(count):
                    self._count_unit()
                    number, at = _number(self._data, at, size)
                    found.append(number)
                self._derived_from[source] = found

    def _read_properties(self, start: int, end: int) -> None:
        for kind, at, stop in _boxes(self._data, start, end):
            if kind == b"ipco":
                for name, first, last in islice(_boxes(self._data, at, stop), MAX_ITEMS + 1):
                    self._properties.append((name, self._data[first:last]))
            elif kind == b"ipma":
                self._read_associations(at)

    def _read_associations(self, at: int) -> None:
        data = self._data
        number_size = 2 if data[at] == 0 else 4
        wide = data[at + 3] & 1
        count, at = _number(data, at + 4, 4)
        for _ in range(min(count, MAX_ITEMS + 1)):
            number, at = _number(data, at, number_size)
            associations, at = _number(data, at, 1)
            for _ in range(associations):
                self._count_unit()
                index, at = _number(data, at, 2 if wide else 1)
                self._items[number].properties.append(index & (0x7FFF if wide else 0x7F))

    # --- images ---------------------------------------------------------------------------------

    def _grid(self, item: _Item) -> tuple[int, tuple[int, int]]:
        """Return the number of tiles of a grid, and its size."""
        body = self._content(item)
        width, height = struct.unpack_from(">II" if body[1] & 1 else ">HH", body, 4)
        return (body[2] + 1) * (body[3] + 1), (width, height)

    def _content(self, item: _Item) -> bytes:
        store = self._idat if item.in_idat else self._data
        # A length of 0 is everything up to the end.
        parts = [store[at : at + length] if length else store[at:] for at, length in item.extents]
        if sum(map(len, parts)) > len(self._data):
            raise HeifProblem("its parts overlap")
        return b"".join(parts)

    def _coded(self, item: _Item) -> _Coded:
        found, length_size = _Coded(), 4
        for index in item.properties:
            if not 0 < index <= len(self._properties):
                continue
            name, body = self._properties[index - 1]
            if name == b"hvcC":
                length_size = (body[21] & 3) + 1
                for unit in _units_of_hvcc(body):
                    self._note_hevc(unit, found)
            elif name == b"av1C":
                self._note_av1(body[4:], found)
        content = self._content(item)
        if item.kind == b"hvc1":
            at = 0
            while at < len(content):
                length, at = _number(content, at, length_size)
                self._note_hevc(content[at : at + length], found)
                at += length
        else:
            self._note_av1(content, found)
        if not found.pixels:
            raise HeifProblem("one of its images does not tell its size")
        return found

    def _count_unit(self) -> None:
        self._units += 1
        if self._units > MAX_UNITS:
            raise HeifProblem(f"it has more than {MAX_UNITS} parts")

    def _note_hevc(self, unit: bytes, found: _Coded) -> None:
        self._count_unit()
        if len(unit) > 2 and unit[0] >> 1 & 63 == _SPS:
            _note_sps(_Bits(unit[2:1024].replace(b"\0\0\3", b"\0\0")), found)

    def _note_av1(self, data: bytes, found: _Coded) -> None:
        at = 0
        while at < len(data):
            self._count_unit()
            header, at = data[at], at + 1
            if header & 4:  # an extension
                at += 1
            length = len(data) - at
            if header & 2:
                length, at = _leb128(data, at)
            if header >> 3 & 15 == _AV1_SEQUENCE:
                _note_sequence(_Bits(data[at : at + length][:1024]), found)
            at += length


def _exif_parts(content: bytes) -> tuple[bytes, bytes]:
    """Return where EXIF data may begin: at once, or where the first number says."""
    return content[4:], content[4 + int.from_bytes(content[:4]) :]


def _boxes(data: bytes, at: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield the kind of each box with where its content begins and ends."""
    count = 0
    while at + 8 <= end:
        size, kind = struct.unpack_from(">I4s", data, at)
        start = at + 8
        if size == 1:
            (size,) = struct.unpack_from(">Q", data, start)
            start += 8
        stop = end if size == 0 else at + size
        if stop < start or stop > end:
            raise HeifProblem("it is truncated")
        count += 1
        if count > MAX_UNITS:
            raise HeifProblem(f"it has more than {MAX_UNITS} parts")
        yield kind, start, stop
        at = stop


def _number(data: bytes, at: int, size: int) -> tuple[int, int]:
    if at + size > len(data):
        raise IndexError("a number is missing")
    return int.from_bytes(data[at : at + size]), at + size


def _leb128(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 56, 7):
        byte, at = data[at], at + 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise IndexError("a length does not end")


def _units_of_hvcc(body: bytes) -> Iterator[bytes]:
    arrays, at = _number(body, 22, 1)
    for _ in range(arrays):
        count, at = _number(body, at + 1, 2)
        for _ in range(count):
            length, at = _number(body, at, 2)
            yield body[at : at + length]
            at += length


class _Bits:
    """Reads numbers bit by bit."""

    def __init__(self, data: bytes) -> None:
        self._value = int.from_bytes(data)
        self._left = 8 * len(data)

    def take(self, count: int) -> int:
        self._left -= count
        if self._left < 0:
            raise IndexError("it ends within a number")
        return self._value >> self._left & (1 << count) - 1

    def golomb(self) -> int:
        """Return an unsigned Exp-Golomb code (H.265, 9.2)."""
        zeros = 0
        while not self.take(1):
            zeros += 1
        return (1 << zeros) - 1 + self.take(zeros)


def _note_sps(bits: _Bits, found: _Coded) -> None:
    """Note what a sequence parameter set claims (H.265, 7.3.2.2)."""
    bits.take(4)
    layers = bits.take(3)
    bits.take(1 + 96)  # the general profile and level
    if layers:
        present = [(bits.take(1), bits.take(1)) for _ in range(layers)]
        bits.take(2 * (8 - layers))
        for profile, level in present:
            bits.take(88 * profile + 8 * level)
    bits.golomb()
    chroma = bits.golomb()
    if chroma == 3:
        bits.take(1)
    width, height = bits.golomb(), bits.golomb()
    if bits.take(1):  # a conformance window
        for _ in range(4):
            bits.golomb()
    found.claim(width, height, deep=bits.golomb() > 0, subsampled=chroma < 2)


def _note_sequence(bits: _Bits, found: _Coded) -> None:
    """Note what a sequence header claims (AV1, 5.5)."""
    profile = bits.take(3)
    bits.take(1)
    still = bits.take(1)
    if still:
        bits.take(5)
    else:
        _skip_operating_points(bits)
    width_bits, height_bits = bits.take(4) + 1, bits.take(4) + 1
    width, height = bits.take(width_bits) + 1, bits.take(height_bits) + 1
    if not still and bits.take(1):
        bits.take(7)
    bits.take(3)
    if not still:
        _skip_inter_tools(bits)
    bits.take(3)
    found.claim(width, height, deep=bool(bits.take(1)), subsampled=profile == 0)


def _skip_inter_tools(bits: _Bits) -> None:
    bits.take(4)
    order_hint = bits.take(1)
    if order_hint:
        bits.take(2)
    screen_content = 2 if bits.take(1) else bits.take(1)
    if screen_content and not bits.take(1):
        bits.take(1)
    if order_hint:
        bits.take(3)


def _skip_operating_points(bits: _Bits) -> None:
    delay_bits = 0
    if bits.take(1):  # timing
        bits.take(64)
        if bits.take(1):
            bits.golomb()
        if bits.take(1):  # a decoder model
            delay_bits = bits.take(5) + 1
            bits.take(32 + 5 + 5)
    display_delay = bits.take(1)
    for _ in range(bits.take(5) + 1):
        bits.take(12)
        if bits.take(5) > 7:
            bits.take(1)
        if delay_bits and bits.take(1):
            bits.take(2 * delay_bits + 1)
        if display_delay and bits.take(1):
            bits.take(4)
