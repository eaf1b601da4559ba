"""The histogram of the catalogue exposes what the client library's does."""

from __future__ import annotations

import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.openmetrics.exposition import generate_latest

from shashin.metrics.quick_histogram import QuickHistogram

BOUNDS = (0.001, 0.01, 0.1, 1.0, 2.5)
AMOUNTS = st.one_of(
    st.floats(-1, 10), st.sampled_from(BOUNDS), st.sampled_from([0.0, float("inf"), 1e-300])
)
OBSERVED = st.lists(
    st.tuples(
        st.sampled_from(["a", "b"]), AMOUNTS, st.one_of(st.none(), st.text("0123", max_size=8))
    )
)


def exposed(
    kind: type[Histogram],
    bounds: Sequence[float],
    observed: Sequence[tuple[str, float, str | None]],
) -> str:
    """Return the page of a histogram with a label and of one without, less the time of exemplars."""
    registry = CollectorRegistry()
    labelled = kind("labelled", "Of a test.", ["by"], buckets=bounds, registry=registry)
    plain = kind("plain", "Of a test.", buckets=bounds, registry=registry)
    for by, amount, exemplar in observed:
        labels = None if exemplar is None else {"trace_id": exemplar}
        labelled.labels(by).observe(amount, labels)
        plain.observe(amount, labels)
    # When it was made is no sample of the catalogue.
    page = generate_latest(registry).decode()  # type: ignore[no-untyped-call, unused-ignore]
    text = re.sub(r"^\S+_created.*\n", "", page, flags=re.MULTILINE)
    return re.sub(r"(# \{.*\} \S+) \S+$", r"\1", text, flags=re.MULTILINE)


@given(OBSERVED, st.sampled_from([BOUNDS, (-1.0, 0.0, 1.0), (float("inf"),), (0.5, float("inf"))]))
def test_it_exposes_what_the_client_library_does(
    observed: list[tuple[str, float, str | None]], bounds: tuple[float, ...]
) -> None:
    if bounds == (float("inf"),):
        bounds = (0.0, *bounds)
    assert exposed(QuickHistogram, bounds, observed) == exposed(Histogram, bounds, observed)


def test_no_observation_is_lost_between_threads() -> None:
    registry = CollectorRegistry()
    histogram = QuickHistogram("shared", "Of a test.", buckets=BOUNDS, registry=registry)

    def observe(_: int) -> None:
        for _number in range(5_000):
            histogram.observe(0.5)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(observe, range(4)))
    assert registry.get_sample_value("shared_count") == 20_000
    assert registry.get_sample_value("shared_sum") == 10_000
    assert registry.get_sample_value("shared_bucket", {"le": "0.1"}) == 0
