"""Whatever values labels are given, the number of series stays bounded, and every scrape can be read."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import REGISTRY, CollectorRegistry, Counter
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from docs.generate_metrics import areas
from shashin.metrics.core import Labelled, made
from shashin.metrics.definitions import OTHER, Definition, Label

LABELLED = [d for area in areas() for d in area.definitions if d.labels]
MEANING = "Counts for a test."


def counting(*labels: Label) -> tuple[CollectorRegistry, Labelled[Counter]]:
    registry = CollectorRegistry()
    metric: Labelled[Counter] = made(
        Definition("shashin_test_things", "counter", MEANING, labels=labels), registry
    )
    return registry, metric


def use(metric: Labelled[Any], values: tuple[str, ...]) -> None:
    """Count, set or observe one."""
    child = metric.labels(*values)
    match metric.definition.type:
        case "histogram":
            child.observe(1)
        case "info":
            child.info({})
        case _:
            child.inc()


def series(registry: CollectorRegistry) -> int:
    return sum(len(family.samples) for family in registry.collect())


@pytest.mark.parametrize("definition", LABELLED, ids=lambda definition: definition.name)
def test_a_flood_of_distinct_values_makes_no_more_series_than_the_catalogue_states(
    definition: Definition,
) -> None:
    registry = CollectorRegistry()
    metric = made(definition, registry)
    flood = max(label.bound for label in definition.labels) + 100
    for number in range(flood):
        use(metric, tuple(f"{label.name} {number}" for label in definition.labels))
    assert series(registry) <= definition.max_series
    # Beyond the bounds there is one more child, however many values are still to come.
    before = series(registry)
    for number in range(flood, 2 * flood):
        use(metric, tuple(f"{label.name} {number}" for label in definition.labels))
    assert series(registry) == before


@pytest.mark.parametrize("definition", LABELLED, ids=lambda definition: definition.name)
@settings(max_examples=20)  # for each of a hundred metrics
@given(data=st.data())
def test_arbitrary_values_make_no_more_series_than_the_catalogue_states(
    definition: Definition, data: st.DataObject
) -> None:
    known = [
        st.sampled_from(label.values) | st.text() if label.values else st.text()
        for label in definition.labels
    ]
    registry = CollectorRegistry()
    metric = made(definition, registry)
    for values in data.draw(st.lists(st.tuples(*known), max_size=40)):
        use(metric, values)
    assert series(registry) <= definition.max_series


@given(
    values=st.lists(st.tuples(st.text(), st.text()), max_size=60),
    at_most=st.integers(1, 4),
)
def test_a_label_has_its_own_values_first_and_then_other(
    values: list[tuple[str, str]], at_most: int
) -> None:
    registry, metric = counting(
        Label("color", "a color", values=("red", "blue")),
        Label("shape", "a shape", at_most=at_most),
    )
    for one in values:
        metric.labels(*one).inc()
    ((_, samples),) = [(f.name, f.samples) for f in registry.collect()]
    counted = {(s.labels["color"], s.labels["shape"]): s.value for s in samples}
    assert sum(counted.values()) == len(values), "nothing is lost"
    assert {color for color, _ in counted} <= {"red", "blue", OTHER}
    shapes = {shape for _, shape in counted} - {OTHER}
    assert len(shapes) <= at_most
    usable = [shape for _, shape in values if len(shape) <= 100 and shape.isprintable()]
    assert shapes - set(dict.fromkeys(usable)) == set()
    assert set(list(dict.fromkeys(usable))[:at_most]) - {OTHER} <= shapes


def test_what_is_beyond_a_bound_is_reported_once_in_the_log_and_counted_each_time(
    caplog: pytest.LogCaptureFixture,
) -> None:
    _, metric = counting(Label("shape", "a shape", at_most=1))
    counted = "shashin_metrics_other_values_total"
    labels = {"metric": "shashin_test_things_total"}
    before = REGISTRY.get_sample_value(counted, labels) or 0.0
    with caplog.at_level(logging.WARNING):
        for shape in ("round", "square", "flat", "round"):
            metric.labels(shape).inc()
    (line,) = caplog.messages
    assert "shashin_test_things_total: the label shape may not have the value 'square'" in line
    assert REGISTRY.get_sample_value(counted, labels) == before + 2


@pytest.mark.parametrize(
    "odd", ["\ud800", "a\nb", "\0", "x" * 101, "\u2028", 'quoted "', "back\\slash", "日本", ""]
)
def test_odd_values_leave_every_page_readable(odd: str) -> None:
    registry, metric = counting(Label("shape", "a shape", at_most=5))
    metric.labels(odd).inc()
    (family,) = text_string_to_metric_families(generate_latest(registry).decode())
    (sample,) = (s for s in family.samples if s.name.endswith("_total"))
    assert sample.labels["shape"] in {odd, OTHER}
    assert generate_openmetrics(registry).endswith(b"# EOF\n")  # type: ignore[no-untyped-call]


def test_equal_values_share_a_child_also_between_threads() -> None:
    registry, metric = counting(Label("shape", "a shape", at_most=8))

    def count(number: int) -> None:
        for _ in range(500):
            metric.labels(f"shape {number % 4}").inc()

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(count, range(8)))
    found = {s.labels["shape"]: s.value for f in registry.collect() for s in f.samples}
    assert found == {f"shape {number}": 1000.0 for number in range(4)}


def test_a_wrong_number_of_values_is_refused() -> None:
    _, metric = counting(Label("shape", "a shape", at_most=8))
    with pytest.raises(ValueError, match="argument"):
        metric.labels("round", "red")


def test_children_that_are_removed_are_gone_and_begin_at_0_again() -> None:
    registry, metric = counting(Label("shape", "a shape", at_most=2))
    metric.labels("round").inc(7)
    metric.remove("round")
    metric.remove("never seen")
    assert series(registry) == 0
    metric.labels("round").inc()
    assert registry.get_sample_value("shashin_test_things_total", {"shape": "round"}) == 1


def test_cleared_metrics_have_room_for_other_values() -> None:
    registry, metric = counting(Label("shape", "a shape", at_most=1))
    metric.labels("round").inc()
    metric.clear()
    metric.labels("square").inc()
    found = {s.labels["shape"] for f in registry.collect() for s in f.samples}
    assert found == {"square"}
