"""Calls by gRPC: rate, errors and duration, of every server and of calls to other services."""

from __future__ import annotations

from shashin.metrics.core import counter, histogram
from shashin.metrics.definitions import Label
from shashin.metrics.labels import GRPC_STATUSES, METHOD, STATUS, TIER

ABORTED_BY_HANDLER = "ABORTED_BY_HANDLER"
"""In place of the status of a call that its handler aborted, which the server cannot see."""

RATE_LIMITED = "RATE_LIMITED"
"""In place of RESOURCE_EXHAUSTED for a caller that exceeds its own rate, which is no fault of the system."""

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1, 2.5, 5)

LATENCY = histogram(
    "shashin_rpc_seconds",
    "Time from receiving a request to its response, by method.",
    [METHOD],
    unit="seconds",
    buckets=_BUCKETS,
)
ANSWERS = counter(
    "shashin_rpc_answers",
    "Responses by method and gRPC status. RESOURCE_EXHAUSTED is load that was shed; "
    "RATE_LIMITED, with the same status for its caller, is what exceeds the rate of an API key.",
    [
        METHOD,
        Label(
            "status", "the gRPC status", values=(*GRPC_STATUSES, ABORTED_BY_HANDLER, RATE_LIMITED)
        ),
    ],
)

_OF_CLIENT = [
    Label(
        "method", "the method called", values=("Search", "Lookup", "Describe", "Newest", "Embed")
    ),
    Label("role", "what is called", values=("indexer", "index-server", "embedder")),
    TIER,
]
CLIENT_LATENCY = histogram(
    "shashin_rpc_client_seconds",
    "Time from sending a request to another service to its response, by method, role and tier of the "
    "endpoint. Searches that share a call count once.",
    _OF_CLIENT,
    unit="seconds",
    buckets=_BUCKETS,
)
CLIENT_ANSWERS = counter(
    "shashin_rpc_client_answers",
    "Responses to calls to other services, by method, role and tier of the endpoint, and gRPC status. "
    "CANCELLED are calls that were no longer needed, as the slower one of a hedge.",
    [*_OF_CLIENT, STATUS],
)
