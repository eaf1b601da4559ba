"""The Kubernetes API as a client sees it."""

from __future__ import annotations

from shashin.metrics.core import counter, gauge
from shashin.metrics.definitions import Label

REQUEST_ERRORS = counter(
    "shashin_kubernetes_request_errors",
    "Requests to the API server that failed, by verb and HTTP status; none without a response.",
    [
        Label(
            "verb",
            "the verb of the request",
            values=("get", "list", "watch", "create", "update", "patch", "delete"),
        ),
        Label("status", "the HTTP status, or none", at_most=32),
    ],
)
CLOCK_SKEW_SECONDS = gauge(
    "shashin_kubernetes_clock_skew_seconds",
    "How far this machine's clock is ahead of the API server's; negative if it is behind.",
    unit="seconds",
)
