"""Filters: compute a mask of the rows that a search may return."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np
import numpy.typing as npt

from shashin.shards.format.columns import Coded, Columns
from shashin.shards.format.dictionary import Choices
from shashin.shards.format.row import NO_TIME
from shashin.shards.intervals import MAX, MIN, Intervals


@dataclass(frozen=True)
class PriceRange:
    """Prices in one currency, in minor units; both bounds are inclusive, None is no bound."""

    currency: str
    """ISO 4217; not empty."""
    min_minor: int | None = None
    max_minor: int | None = None


@dataclass(frozen=True)
class TimeRange:
    """Times in Unix seconds; None is no bound."""

    since: int | None = None
    """Inclusive."""
    until: int | None = None
    """Exclusive."""


@dataclass(frozen=True)
class FieldChoices:
    """Choices of the columns with a dictionary."""

    category: Choices
    brand: Choices

    def __bool__(self) -> bool:
        return bool(self.category or self.brand)

    def common(self, other: FieldChoices) -> FieldChoices:
        """Return those that are in both."""
        return FieldChoices(self.category.common(other.category), self.brand.common(other.brand))


@dataclass(frozen=True)
class RowFilter:
    """Conditions that a row has to meet: any choice of each field, where categories and prefixes are one.

    A field without choices is met by all rows.
    """

    categories: tuple[str, ...] = ()
    category_prefixes: tuple[str, ...] = ()
    """Paths: ``a/b`` is met by ``a/b`` and ``a/b/c``, not by ``a/bc``."""
    brands: tuple[str, ...] = ()
    prices: tuple[PriceRange, ...] = ()
    """A row without a currency meets none."""
    listed: tuple[TimeRange, ...] = ()
    """A row without a time meets none."""

    @cached_property
    def restricts(self) -> bool:
        """Whether any condition is set."""
        return any(getattr(self, field.name) != field.default for field in fields(self))

    @cached_property
    def choices(self) -> FieldChoices:
        """The categories, prefixes and brands."""
        return FieldChoices(Choices(self.categories, self.category_prefixes), Choices(self.brands))

    @cached_property
    def _prices(self) -> list[tuple[Choices, Intervals]]:
        """By currency."""
        bounds = defaultdict(list)
        for price in self.prices:
            bounds[price.currency].append(
                (
                    MIN if price.min_minor is None else price.min_minor,
                    MAX if price.max_minor is None else price.max_minor,
                )
            )
        return [(Choices((currency,)), Intervals.union(of)) for currency, of in bounds.items()]

    @cached_property
    def _times(self) -> Intervals:
        return Intervals.union(
            (
                # NO_TIME is the smallest number, and no time.
                NO_TIME + 1 if time.since is None else max(time.since, NO_TIME + 1),
                MAX if time.until is None else time.until - 1,
            )
            for time in self.listed
        )

    def mask(self, columns: Columns) -> npt.NDArray[np.bool_]:
        """Return which rows meet the conditions, (n,) bool."""
        mask = np.ones(len(columns.version), dtype=np.bool_)
        for choices, column in (
            (self.choices.category, columns.category),
            (self.choices.brand, columns.brand),
        ):
            if choices:
                mask &= _any_of(column, choices)
        if self.prices:
            mask &= self._priced(columns)
        if self.listed:
            mask &= self._times.contain(columns.listed_at)
        return mask

    def unknown(self, columns: Columns) -> FieldChoices:
        """Return the choices that no value of the columns meets; a hidden row's value counts."""
        category, brand = self.choices.category, self.choices.brand
        return FieldChoices(
            columns.category.dictionary.chosen(category).unknown if category else category,
            columns.brand.dictionary.chosen(brand).unknown if brand else brand,
        )

    def _priced(self, columns: Columns) -> npt.NDArray[np.bool_]:
        mask = np.zeros(len(columns.version), dtype=np.bool_)
        for currency, prices in self._prices:
            of_currency = columns.currency.dictionary.chosen(currency)
            if of_currency.count:
                found = prices.contain(columns.price_minor)
                if of_currency.count < len(of_currency.flags):
                    found &= of_currency.flags[columns.currency.codes]
                mask |= found
        return mask


def _any_of(column: Coded, choices: Choices) -> npt.NDArray[np.bool_]:
    found: npt.NDArray[np.bool_] = column.dictionary.chosen(choices).flags[column.codes]
    return found
