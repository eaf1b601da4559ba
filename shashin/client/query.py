"""What is searched for, as callers of the client write it: plain values that never change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from os import PathLike
from typing import Any, Protocol, TypeAlias

from shashin.photo_box import Box

__all__ = ["Box", "Filter", "Image", "Part", "PhotoFile", "PhotoInput", "PriceRange", "TimeRange"]


class PhotoFile(Protocol):
    """A file that is open for reading bytes."""

    def read(self, size: int = ..., /) -> bytes:
        """Return at most ``size`` bytes."""
        ...


class Image(Protocol):
    """An image that can write itself, as those of Pillow."""

    def save(self, fp: Any, format: str | None = ...) -> object:  # noqa: A002 - as Pillow names it
        """Write it in a format."""
        ...


PhotoInput: TypeAlias = bytes | bytearray | memoryview | str | PathLike[str] | PhotoFile | Image
"""A photo: its bytes (JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF or HEIC), the path of its file, an open file,
or an image of Pillow, which is sent as PNG. At most 16 MiB and 50 megapixels; 256 pixels on the short side
are enough."""


@dataclass(frozen=True)
class PriceRange:
    """Prices of one currency; amounts of different currencies cannot be compared."""

    currency: str
    """ISO 4217, such as JPY."""
    min: int | None = None
    """Minor units (yen, cents), inclusive; None for no bound."""
    max: int | None = None
    """Minor units (yen, cents), inclusive; None for no bound."""


@dataclass(frozen=True)
class TimeRange:
    """When listings first went on sale. Times need a time zone, and are rounded up to whole seconds."""

    since: datetime | None = None
    """Inclusive; None for no bound."""
    until: datetime | None = None
    """Exclusive; None for no bound."""


@dataclass(frozen=True)
class Filter:
    """Which listings may be hits: those that meet every field that is given.

    A field is met if any of its entries matches; ``categories`` and ``under`` are one field. A single string
    or range stands for a list of one.
    """

    under: str | Sequence[str] = ()
    """Categories with all below them: fashion/shoes has fashion/shoes/sneakers, but not fashion/shoes2."""
    categories: str | Sequence[str] = ()
    """Categories exactly as listings have them."""
    brands: str | Sequence[str] = ()
    price: PriceRange | Sequence[PriceRange] = ()
    since: datetime | None = None
    """On sale since this time, inclusive."""
    until: datetime | None = None
    """On sale since before this time."""
    listed: TimeRange | Sequence[TimeRange] = ()
    """Several ranges of time instead of ``since`` and ``until``."""


@dataclass(frozen=True)
class Part:
    """One of several things that a query combines: exactly one of photo, vector and listing_id."""

    photo: PhotoInput | None = None
    vector: Sequence[float] | Any = None
    """A sequence of numbers, or a NumPy array, (dimensions,)."""
    listing_id: str | None = None
    """Of a listing with several photos, the mean of their vectors."""
    crop: Box | Sequence[float] | None = None
    """The part of the photo that is searched for; None for all of it."""
    weight: float = 1.0
    """-10 to 10 and not 0; a negative one finds listings that resemble it less."""


@dataclass(frozen=True)
class ReadPart:
    """A part whose photo has been read."""

    photo: bytes | None
    vector: Any
    listing_id: str | None
    crop: Box | Sequence[float] | None
    weight: float


@dataclass(frozen=True)
class Query:
    """One search, before its photos are read; the arguments of ``Client.search``."""

    photo: PhotoInput | None = None
    vector: Sequence[float] | Any = None
    listing_id: str | None = None
    parts: Sequence[Part] = ()
    crop: Box | Sequence[float] | None = None
    k: int = 10
    filter: Filter | None = None
    min_score: float | None = None
    each_photo: bool = False
    other_photos: bool = False
    ids_only: bool = False
    exclude: Sequence[str] = field(default=())
