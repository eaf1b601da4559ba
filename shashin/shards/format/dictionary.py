"""The distinct strings of a column, and which of them a filter chooses."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

_REMEMBERED = 8
"""Of each column, for so many choices it is remembered what they choose."""

_AFTER_SLASH = chr(ord("/") + 1)


@dataclass(frozen=True)
class Choices:
    """Values of a column: those that equal one of the strings, or are a prefix or below it."""

    strings: tuple[str, ...] = ()
    prefixes: tuple[str, ...] = ()
    """Paths: ``a/b`` chooses ``a/b`` and ``a/b/c``, not ``a/bc``."""

    def __bool__(self) -> bool:
        return bool(self.strings or self.prefixes)

    def common(self, other: Choices) -> Choices:
        """Return those that are in both, in the order of these."""
        if self == other:
            return self
        strings, prefixes = set(other.strings), set(other.prefixes)
        return Choices(
            tuple(string for string in self.strings if string in strings),
            tuple(prefix for prefix in self.prefixes if prefix in prefixes),
        )


@dataclass(frozen=True, eq=False)
class Chosen:
    """What choices are in a dictionary."""

    flags: npt.NDArray[np.bool_]
    """(values,): whether each is chosen."""
    count: int
    """Of those that are."""
    unknown: Choices
    """The choices that no value meets."""


class Dictionary:
    """Strings, each with its position as its code; one thread may add to them while others read."""

    def __init__(self, values: Iterable[str] = ()) -> None:
        self._values = list(values)
        self.values: Sequence[str] = self._values
        """The strings by code."""
        # Those of a sealed shard are looked up only if it is searched with a filter. An empty dictionary
        # has one at once: one that a reader makes could miss what is added meanwhile.
        self._codes: dict[str, int] | None = None if self._values else {}
        self._sorted: _Sorted | None = None
        # Once per choices and number of values: it is asked again for every few rows of an open shard.
        self._chosen = lru_cache(maxsize=_REMEMBERED)(self._choose)

    def __len__(self) -> int:
        return len(self._values)

    def add(self, value: str) -> int:
        """Return the code of a string, which is added if it is new."""
        codes = self._code_of()
        code = codes.get(value)
        if code is None:
            code = len(self._values)
            # In this order: what readers look up among so many values, they remember for that many.
            codes[value] = code
            self._values.append(value)
        return code

    def chosen(self, choices: Choices) -> Chosen:
        """Return which values are chosen; remembered for the choices that were used last."""
        return self._chosen(choices, len(self._values))

    def _choose(self, choices: Choices, size: int) -> Chosen:
        code_of = self._code_of().get
        codes = [code for one in choices.strings if (code := code_of(one, size)) < size]
        unknown: tuple[str, ...] = ()
        if len(codes) < len(choices.strings):
            unknown = tuple(one for one in choices.strings if code_of(one, size) >= size)
        unknown_prefixes = []
        if choices.prefixes:
            ordered = self._ordered(size)
            for prefix in choices.prefixes:
                itself = code_of(prefix, size)
                below = ordered.codes_below(prefix)
                codes += below
                if itself < size:
                    codes.append(itself)
                elif not below:
                    unknown_prefixes.append(prefix)
        flags = np.zeros(size, dtype=np.bool_)
        flags[codes] = True
        return Chosen(
            flags, int(np.count_nonzero(flags)), Choices(unknown, tuple(unknown_prefixes))
        )

    def _code_of(self) -> dict[str, int]:
        if self._codes is None:
            self._codes = {value: code for code, value in enumerate(self._values)}
        return self._codes

    def _ordered(self, size: int) -> _Sorted:
        ordered = self._sorted
        if ordered is None or len(ordered) != size:
            ordered = self._sorted = _Sorted(self._values[:size])
        return ordered


class _Sorted:
    """Values in order, in which those below a path are neighbours."""

    def __init__(self, values: Sequence[str]) -> None:
        self._codes = sorted(range(len(values)), key=values.__getitem__)
        self._values = [values[code] for code in self._codes]

    def __len__(self) -> int:
        return len(self._values)

    def codes_below(self, path: str) -> list[int]:
        """Return the codes of the values below a path."""
        first = bisect_left(self._values, f"{path}/")
        end = bisect_left(self._values, path + _AFTER_SLASH, first)
        return self._codes[first:end]
