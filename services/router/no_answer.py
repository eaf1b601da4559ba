"""The error of a call that no index endpoint answered: which failed, and which hold another model."""

from __future__ import annotations

from collections.abc import Sequence

import grpc

from shashin.errors import DeadlineExceeded, NoEndpoint, ShashinError
from shashin.serving.fleet import Failure, OtherModel


def nobody_answered(
    failures: Sequence[Failure],
    other_models: Sequence[OtherModel],
    *,
    model_id: str,
    deadline_seconds: float,
) -> ShashinError:
    """Return the error of a call that some endpoints failed and others have no rows for."""
    others = "; ".join(map(str, other_models))
    if not failures:
        if not others:
            return NoEndpoint(
                "no index endpoint is known: discovery names no indexer and no index server; start "
                "one, or look at SHASHIN_DISCOVERY"
            )
        return NoEndpoint(
            f"no index endpoint holds model {model_id!r}, which is searched: {others}; start an "
            f"indexer or an index server of {model_id!r}, or set the router's SHASHIN_MODEL_ID to "
            "the model that is there"
        )
    listed = "; ".join(map(str, failures))
    aside = f"; not asked for model {model_id!r}: {others}" if others else ""
    if all(f.status == grpc.StatusCode.DEADLINE_EXCEEDED.name for f in failures):
        return DeadlineExceeded(
            f"none of {len(failures)} endpoints answered within {deadline_seconds * 1000:.0f} ms: "
            f"{listed}{aside}"
        )
    return NoEndpoint(f"none of {len(failures)} endpoints answered: {listed}{aside}")
