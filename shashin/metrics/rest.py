"""Requests by REST: rate, errors and duration."""

from __future__ import annotations

from shashin.metrics.core import counter, histogram
from shashin.metrics.definitions import Label

NO_ROUTE = "none"
"""In place of the route of a request that has none."""

_ROUTE = Label("route", "the path of the route, without its values", at_most=24)

LATENCY = histogram(
    "shashin_rest_seconds",
    "Time from receiving the headers of a request to the end of its answer, by route.",
    [_ROUTE],
    unit="seconds",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1, 2.5, 5),
)
ANSWERS = counter(
    "shashin_rest_answers",
    "Answers by route and HTTP status. 429 and 503 with the reason Overloaded are load that was shed.",
    [_ROUTE, Label("status", "the HTTP status", at_most=24)],
)
