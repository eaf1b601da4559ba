"""What a metric and a label are: definitions that follow Prometheus' conventions, or are refused.

Conventions: https://prometheus.io/docs/practices/naming/, and the OpenMetrics specification for the suffixes
that the client library adds. Pure.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Type = Literal["counter", "gauge", "histogram", "info"]
Unit = Literal["", "seconds", "bytes", "ratio"]
"""A base unit; empty for a number of things, and for 0 or 1."""

OTHER = "other"
"""The value of a label in place of all that are beyond its bound."""

MAX_SERIES = 10_000
"""Of one metric. A definition that could have more is refused."""

MAX_VALUE_CHARACTERS = 100
_MAX_BUCKETS = 20
_NAME = re.compile(r"shashin(_[a-z][a-z0-9]*)+")
_LABEL_NAME = re.compile(r"[a-z]+(_[a-z]+)*")
_ADDED_SUFFIXES = ("total", "count", "sum", "bucket", "created", "info")
_BASE_UNITS = ("seconds", "bytes", "ratio")
_OTHER_UNITS = {"ms", "millis", "milliseconds", "us", "ns", "minutes", "hours", "days", "kb", "mb", "kib", "mib", "percent"}  # fmt: skip
_RESERVED = {"le", "quantile", "job", "instance", "pod", "namespace", "container", "endpoint"}
"""Of Prometheus itself, and of what scrapes on Kubernetes add."""
_IDENTIFYING = {"id", "ids", "key", "listing", "listings", "offset", "path", "query", "uri", "url", "user"}  # fmt: skip
"""Words of label names that would stand for one of very many things."""


@dataclass(frozen=True)
class Label:
    """A label of metrics, with its bound: ``values``, or ``at_most`` distinct ones that are not known here.

    Raises ValueError if it is not bounded, reserved, or could identify a listing.
    """

    name: str
    meaning: str
    """A phrase."""
    values: tuple[str, ...] = ()
    at_most: int = 0

    def __post_init__(self) -> None:
        if problem := next(self._problems(), None):
            raise ValueError(f"the label {self.name!r} {problem}")

    def _problems(self) -> Iterator[str]:
        if not _LABEL_NAME.fullmatch(self.name):
            yield "is not in snake case"
        if self.name in _RESERVED:
            yield "is reserved by Prometheus or its service discovery: choose another name"
        if _IDENTIFYING & set(self.name.split("_")) or "listing id" in self.meaning.lower():
            yield "would have a value per listing, photo or query: count these instead"
        if not self.meaning:
            yield "has no meaning"
        if bool(self.values) == (self.at_most > 0):
            yield "is not bounded: expected either its values or at_most"
        if len(set(self.values)) < len(self.values):
            yield "has a value twice"
        if not all(is_usable(value) for value in self.values):
            yield f"has a value that is not printable or longer than {MAX_VALUE_CHARACTERS}"

    @property
    def bound(self) -> int:
        """How many values it can have, with ``other``."""
        return (len(self.values) or self.at_most) + 1


@dataclass(frozen=True)
class Definition:
    """A metric as the catalogue has it; raises ValueError if it breaks a convention."""

    name: str
    """Without the suffix that its type adds."""
    type: Type
    meaning: str
    """One or more sentences; the help text."""
    unit: Unit = ""
    labels: tuple[Label, ...] = ()
    buckets: tuple[float, ...] = ()
    """Upper bounds, of a histogram."""

    def __post_init__(self) -> None:
        if problem := next(self._problems(), None):
            raise ValueError(f"the metric {self.name!r} {problem}")

    def _problems(self) -> Iterator[str]:
        yield from self._problems_of_name()
        yield from self._problems_of_buckets()
        if not re.fullmatch(r"[A-Z0-9][^\n]{8,}\.", self.meaning):
            yield "has a help text that is not a sentence with a period on one line"
        names = [label.name for label in self.labels]
        if len(set(names)) < len(names):
            yield "has a label twice"
        if self.max_series > MAX_SERIES:
            yield f"can have {self.max_series} series; expected at most {MAX_SERIES}"

    def _problems_of_name(self) -> Iterator[str]:
        words = self.name.split("_")
        if not _NAME.fullmatch(self.name):
            yield "is not in snake case with the prefix shashin_"
        if words[-1] in _ADDED_SUFFIXES:
            yield f"ends with _{words[-1]}, which the client library adds where it belongs"
        if found := _OTHER_UNITS & set(words):
            yield f"has the unit {found.pop()}: expected a base unit, seconds, bytes or ratio"
        if self.unit and words[-1] != self.unit:
            yield f"does not end with its unit, {self.unit}"
        if not self.unit and words[-1] in _BASE_UNITS:
            yield f"ends with a unit, {words[-1]}, that it does not declare"

    def _problems_of_buckets(self) -> Iterator[str]:
        if (self.type == "histogram") != bool(self.buckets):
            yield "has buckets but is no histogram, or the reverse"
        if list(self.buckets) != sorted(set(self.buckets)) or not all(
            map(math.isfinite, self.buckets)
        ):
            yield "has buckets that do not ascend to a finite bound"
        if len(self.buckets) > _MAX_BUCKETS:
            yield f"has {len(self.buckets)} buckets; expected at most {_MAX_BUCKETS}"

    @property
    def exported_name(self) -> str:
        """The name to query: of a histogram without ``_bucket``, ``_sum`` and ``_count``."""
        suffix = {"counter": "_total", "info": "_info"}.get(self.type, "")
        return self.name + suffix

    @property
    def max_children(self) -> int:
        """How many sets of label values it can have."""
        return math.prod(label.bound for label in self.labels)

    @property
    def max_series(self) -> int:
        """How many series it can have."""
        # A series per bucket, for the infinite one, the sum and the count.
        return self.max_children * (len(self.buckets) + 3 if self.buckets else 1)


def is_usable(value: str) -> bool:
    """Whether a label can have the value."""
    # Lone surrogates, which would fail every scrape, are not printable.
    return len(value) <= MAX_VALUE_CHARACTERS and value.isprintable()
