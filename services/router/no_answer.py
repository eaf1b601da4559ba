"""The error of a call to which no index endpoint responded."""

from __future__ import annotations

from collections.abc import Sequence

import grpc

from shashin.errors import DeadlineExceeded, NoEndpoint, ShashinError
from shashin.serving.fleet import Failure, OtherModel

_LISTED = 5
"""How many endpoints a message names: it has to fit into the headers of a response."""


def listed(endpoints: Sequence[Failure | OtherModel]) -> str:
    """Return what is said of the first endpoints, and how many more there are."""
    named = "; ".join(map(str, endpoints[:_LISTED]))
    more = len(endpoints) - _LISTED
    return f"{named}; and {more} more" if more > 0 else named


def no_answer_error(
    failures: Sequence[Failure],
    other_models: Sequence[OtherModel],
    *,
    model_id: str,
    deadline_seconds: float,
) -> ShashinError:
    """Return the error; its message names failed endpoints and endpoints of other models."""
    others = listed(other_models)
    if not failures:
        if not others:
            return NoEndpoint(
                "no index endpoint is known: discovery has no indexer and no index server; start "
                "one, or check SHASHIN_DISCOVERY"
            )
        return NoEndpoint(
            f"no index endpoint holds model {model_id!r}, the active model: {others}; start an "
            f"indexer or an index server of {model_id!r}, or set the router's SHASHIN_MODEL_ID to "
            "a model that is served"
        )
    named = listed(failures)
    note = f"; not of model {model_id!r}: {others}" if others else ""
    if all(f.status == grpc.StatusCode.DEADLINE_EXCEEDED.name for f in failures):
        return DeadlineExceeded(
            f"none of {len(failures)} endpoints responded within {deadline_seconds * 1000:.0f} ms: "
            f"{named}{note}"
        )
    return NoEndpoint(f"none of {len(failures)} endpoints responded: {named}{note}")
