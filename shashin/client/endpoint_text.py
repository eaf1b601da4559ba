"""An endpoint in the router's status, as text and JSON."""

from __future__ import annotations

from typing import Any

from shashin.v1 import search_pb2


def holds_other_model(endpoint: search_pb2.EndpointStatus, searched: str) -> bool:
    """Whether an endpoint is not searched only because it holds another model."""
    return bool(endpoint.model_id) and endpoint.model_id != searched


def readiness(endpoint: search_pb2.EndpointStatus, searched: str) -> str:
    """Return whether an endpoint is searched: "yes", "no" or "other model"."""
    if holds_other_model(endpoint, searched):
        return "other model"
    return "yes" if endpoint.ready else "no"


def other_model_lines(status: search_pb2.StatusResponse) -> list[str]:
    """Return one line per endpoint of another model."""
    return [
        f"{endpoint.name} at {endpoint.address} holds model {endpoint.model_id!r} and is not searched: "
        f"the router searches {status.model_id!r}"
        for endpoint in status.endpoints
        if holds_other_model(endpoint, status.model_id)
    ]


def endpoint_document(endpoint: search_pb2.EndpointStatus) -> dict[str, Any]:
    """Return an endpoint for JSON output."""
    return {
        "name": endpoint.name,
        "tier": endpoint.tier,
        "address": endpoint.address,
        "model_id": endpoint.model_id,
        "ready": endpoint.ready,
        "error": endpoint.error,
        "shards": endpoint.shards,
        "rows": endpoint.rows,
        "hidden_rows": endpoint.hidden_rows,
    }
