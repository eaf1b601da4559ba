"""Calls to groups of replicas: failures, retries and hedges."""

from __future__ import annotations

from shashin.metrics.core import counter
from shashin.metrics.labels import METHOD, STATUS, TIER

FAILED_CALLS = counter(
    "shashin_fleet_failed_calls",
    "Calls to index endpoints that failed, by method, tier and gRPC status: once per search that waited for "
    "the call.",
    [METHOD, TIER, STATUS],
)
HEDGES = counter(
    "shashin_fleet_hedges", "Calls to a second replica because the first is slow.", [TIER]
)
HEDGES_WON = counter("shashin_fleet_hedges_won", "Hedges that answered first.", [TIER])
RETRIES = counter(
    "shashin_fleet_retries",
    "Calls to another replica because one has failed or does not respond.",
    [TIER],
)
