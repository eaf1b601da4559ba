"""Makes metrics of definitions, with labels that cannot explode.

A label states its values, or how many it may have at most; whatever else it is given is counted under
``other``. So the number of series of every metric is bounded, whatever a process is sent.
"""

from __future__ import annotations

import itertools
import logging
import math
import threading
from collections.abc import Sequence
from typing import Any, Generic, TypeVar, cast, overload

from prometheus_client import (
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    disable_created_metrics,
)

from shashin.metrics.definitions import (
    MAX_VALUE_CHARACTERS,
    OTHER,
    Definition,
    Label,
    Unit,
    is_usable,
)
from shashin.metrics.quick_histogram import QuickHistogram

# One more sample per series of counters and histograms, which no query here uses.
disable_created_metrics()  # type: ignore[no-untyped-call, unused-ignore]

log = logging.getLogger(__name__)


ChildT = TypeVar("ChildT", bound=Counter | Gauge | Histogram | Info)


class Labelled(Generic[ChildT]):
    """A metric with labels; ``parent`` is the client library's. Thread-safe, like that."""

    def __init__(self, definition: Definition, parent: ChildT) -> None:
        self.definition = definition
        self._parent: ChildT = parent
        self._lock = threading.Lock()
        self._admitted = [_Admitted(label) for label in definition.labels]
        self._children: dict[tuple[str, ...], ChildT] = {}
        """Those with values within the bounds."""
        self._warned: set[str] = set()

    def labels(self, *values: str) -> ChildT:
        """Return the child with these values, in the order of the labels.

        Values beyond a label's bound are replaced by ``other``.
        """
        child = self._children.get(values)
        return self._bind(values) if child is None else child

    def remove(self, *values: str) -> None:
        """Forget the child with these values, if there is one."""
        with self._lock:
            if self._children.pop(values, None) is not None:
                self._parent.remove(*values)

    def clear(self) -> None:
        """Forget all children, and the values that were seen."""
        with self._lock:
            self._children = {}
            self._admitted = [_Admitted(label) for label in self.definition.labels]
            self._parent.clear()

    def _bind(self, values: tuple[str, ...]) -> ChildT:
        beyond = []
        with self._lock:
            bounded = []
            for admitted, value in zip(self._admitted, values, strict=True):
                bounded.append(admitted.bounded(value))
                if bounded[-1] != value:
                    beyond.append((admitted.label, value))
            child = cast("ChildT", self._parent.labels(*bounded))
            if not beyond:
                self._children[values] = child
        for label, value in beyond:
            self._note_other(label, value)
        return child

    def _note_other(self, label: Label, value: str) -> None:
        if self is not OTHER_VALUES:
            OTHER_VALUES.labels(self.definition.exported_name).inc()
        if label.name not in self._warned:
            self._warned.add(label.name)
            log.warning(
                "%s: the label %s may not have the value %r: it is counted as %r, like all that follow",
                self.definition.exported_name,
                label.name,
                value[:MAX_VALUE_CHARACTERS],
                OTHER,
            )


class _Admitted:
    """The values that a label of one metric has had."""

    def __init__(self, label: Label) -> None:
        self.label = label
        self._values = set(label.values)

    def bounded(self, value: str) -> str:
        """Return the value, or ``other`` if it is beyond the bound."""
        if value in self._values:
            return value
        if len(self._values) >= self.label.at_most or not is_usable(value):
            return OTHER
        self._values.add(value)
        return value


_BEGINS_AT_ZERO = 16
"""Series at most of a counter that is exposed before it counts."""

_CATALOGUE: list[tuple[Definition, object]] = []


def definitions() -> list[Definition]:
    """Return the definitions of all areas that are imported."""
    return [definition for definition, _ in _CATALOGUE]


def definition_of(metric: object) -> Definition | None:
    """Return the definition of a metric; None if it is something else."""
    return next((known for known, made in _CATALOGUE if made is metric), None)


def made(definition: Definition, registry: CollectorRegistry) -> Any:
    """Return the metric of a definition, registered: a ``Labelled`` if it has labels."""
    names = [label.name for label in definition.labels]
    shared: dict[str, Any] = {"unit": definition.unit, "registry": registry}
    parent: Any
    match definition.type:
        case "counter":
            parent = Counter(definition.name, definition.meaning, names, **shared)
        case "gauge":
            parent = Gauge(definition.name, definition.meaning, names, **shared)
        case "histogram":
            buckets = definition.buckets
            parent = QuickHistogram(
                definition.name, definition.meaning, names, buckets=buckets, **shared
            )
        case "info":
            parent = Info(definition.name, definition.meaning, names, **shared)
    return Labelled(definition, parent) if names else parent


def _define(definition: Definition) -> Any:
    if any(known.exported_name == definition.exported_name for known in definitions()):
        raise ValueError(f"the metric {definition.name!r} is defined twice")
    metric = made(definition, REGISTRY)
    _CATALOGUE.append((definition, metric))
    if definition.type == "counter" and definition.labels:
        begin_at_zero(metric)
    return metric


def begin_at_zero(counter: Labelled[Counter]) -> None:
    """Expose a counter with all values of its labels, if they are known and few, before it counts.

    Otherwise ``increase`` would miss the first event, which begins the series at 1.
    """
    known = [label.values for label in counter.definition.labels]
    if all(known) and math.prod(map(len, known)) <= _BEGINS_AT_ZERO:
        for values in itertools.product(*known):
            counter.labels(*values)


@overload
def counter(name: str, meaning: str, *, unit: Unit = "") -> Counter: ...
@overload
def counter(
    name: str, meaning: str, labels: Sequence[Label], *, unit: Unit = ""
) -> Labelled[Counter]: ...
def counter(
    name: str, meaning: str, labels: Sequence[Label] = (), *, unit: Unit = ""
) -> Counter | Labelled[Counter]:
    """Define a counter; its exported name ends with ``_total``."""
    return cast(
        "Counter | Labelled[Counter]",
        _define(Definition(name, "counter", meaning, unit, tuple(labels))),
    )


@overload
def gauge(name: str, meaning: str, *, unit: Unit = "") -> Gauge: ...
@overload
def gauge(
    name: str, meaning: str, labels: Sequence[Label], *, unit: Unit = ""
) -> Labelled[Gauge]: ...
def gauge(
    name: str, meaning: str, labels: Sequence[Label] = (), *, unit: Unit = ""
) -> Gauge | Labelled[Gauge]:
    """Define a gauge."""
    return cast(
        "Gauge | Labelled[Gauge]",
        _define(Definition(name, "gauge", meaning, unit, tuple(labels))),
    )


@overload
def histogram(
    name: str, meaning: str, *, buckets: Sequence[float], unit: Unit = ""
) -> Histogram: ...
@overload
def histogram(
    name: str, meaning: str, labels: Sequence[Label], *, buckets: Sequence[float], unit: Unit = ""
) -> Labelled[Histogram]: ...
def histogram(
    name: str,
    meaning: str,
    labels: Sequence[Label] = (),
    *,
    buckets: Sequence[float],
    unit: Unit = "",
) -> Histogram | Labelled[Histogram]:
    """Define a histogram with upper bounds of its buckets, in its unit."""
    return cast(
        "Histogram | Labelled[Histogram]",
        _define(Definition(name, "histogram", meaning, unit, tuple(labels), tuple(buckets))),
    )


def info(name: str, meaning: str, labels: Sequence[Label]) -> Labelled[Info]:
    """Define what is always 1 and has its information in labels; its exported name ends with ``_info``."""
    return cast("Labelled[Info]", _define(Definition(name, "info", meaning, "", tuple(labels))))


OTHER_VALUES = counter(
    "shashin_metrics_other_values",
    "Look-ups of series whose label value is beyond the bound of its label, so that it is counted under "
    "other. Anything but 0 is a mistake in the catalogue.",
    [Label("metric", "the metric with the label", at_most=256)],
)
