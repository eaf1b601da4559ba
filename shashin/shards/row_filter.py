"""Filters: compute a mask of the rows that a search may return."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np
import numpy.typing as npt

from shashin.shards.format.columns import Coded, Columns
from shashin.shards.format.row import NO_TIME


@dataclass(frozen=True)
class RowFilter:
    """Conditions that a row has to meet, combined by AND; the defaults match all rows."""

    categories: tuple[str, ...] = ()
    brands: tuple[str, ...] = ()
    min_price_minor: int | None = None
    max_price_minor: int | None = None
    currency: str = ""
    listed_from: int | None = None
    """Unix seconds, inclusive."""
    listed_to: int | None = None
    """Unix seconds, exclusive."""

    @cached_property
    def restricts(self) -> bool:
        """Whether any condition is set."""
        return any(getattr(self, field.name) != field.default for field in fields(self))

    def mask(self, columns: Columns) -> npt.NDArray[np.bool_]:
        """Return which rows meet the conditions, (n,) bool."""
        mask = np.ones(len(columns.version), dtype=np.bool_)
        for values, column in ((self.categories, columns.category), (self.brands, columns.brand)):
            if values:
                mask &= _any_of(column, values)
        if self.currency:
            mask &= _any_of(columns.currency, (self.currency,))
        if self.min_price_minor is not None or self.max_price_minor is not None:
            mask &= ~_any_of(columns.currency, ("",))
        if self.min_price_minor is not None:
            mask &= columns.price_minor >= self.min_price_minor
        if self.max_price_minor is not None:
            mask &= columns.price_minor <= self.max_price_minor
        if self.listed_from is not None:
            mask &= (columns.listed_at >= self.listed_from) & (columns.listed_at != NO_TIME)
        if self.listed_to is not None:
            mask &= (columns.listed_at < self.listed_to) & (columns.listed_at != NO_TIME)
        return mask


def _any_of(column: Coded, values: tuple[str, ...]) -> npt.NDArray[np.bool_]:
    wanted = np.zeros(len(column.values), dtype=np.bool_)
    wanted[column.codes_of(values)] = True
    found: npt.NDArray[np.bool_] = wanted[column.codes]
    return found
