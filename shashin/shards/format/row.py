"""One row of a shard: the listing, version and photo of a vector, and its filterable attributes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

NO_TIME = np.iinfo(np.int64).min
"""The listed_at of a row that has none."""


MAX_PHOTO_NUMBER = np.iinfo(np.uint16).max


class RowAttributes(NamedTuple):
    """The attributes of one row."""

    category: str = ""
    brand: str = ""
    price_minor: int = 0
    currency: str = ""
    """ISO 4217; empty if there is no price."""
    listed_at: int = NO_TIME
    """Unix seconds."""


RowDetails = tuple[tuple[str, str, int, str, int], bytes, int]
"""A row's attributes, in the order of ``RowAttributes``, with the URI in UTF-8 and the hash of its photo; empty and 0
if they are not known. No named tuple, which takes as long to make as all that is in it: there is one for each hit.
"""


@dataclass(frozen=True)
class Row:
    """One row: one photo of one version of a listing."""

    listing_id: str
    version: int
    photo_number: int
    attributes: RowAttributes
    photo_uri: str = ""
    """Where the photo was read from; empty if it is not known."""
    photo_hash: int = 0
    """The first 64 bits of the original's SHA-256, little-endian; 0 if it is not known. See
    shashin.photo_hash."""


@dataclass(frozen=True)
class NewRow:
    """A row to add, with its vector (dimensions,) float32."""

    row: Row
    vector: npt.NDArray[np.float32]
