"""Offsets that count how often they are compared: how much work a decision is, without a clock."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any


class Counted(int):
    """An offset or partition; every comparison of one counts."""

    comparisons = 0


def _counting(compare: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    @functools.wraps(compare)
    def counted(one: Any, other: Any) -> bool:
        Counted.comparisons += 1
        return compare(one, other)

    return counted


for _name in ("__lt__", "__le__", "__gt__", "__ge__", "__eq__", "__ne__"):
    setattr(Counted, _name, _counting(getattr(int, _name)))
Counted.__hash__ = int.__hash__  # type: ignore[method-assign]


def comparisons_of(do: Callable[[], object]) -> int:
    """Return how many comparisons of counted offsets something takes."""
    before = Counted.comparisons
    do()
    return Counted.comparisons - before
