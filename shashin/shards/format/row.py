"""One row of a shard: whose vector it is, in which version, and what a search may filter on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

NO_TIME = np.iinfo(np.int64).min
"""listed_at of a row without one."""


MAX_PHOTO_NUMBER = np.iinfo(np.uint16).max


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


@dataclass(frozen=True)
class NewRow:
    """A row to be added, with its vector (dimensions,) float32."""

    row: Row
    vector: npt.NDArray[np.float32]
