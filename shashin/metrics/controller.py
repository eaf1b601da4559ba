"""Reconciling IndexServings and IndexBuilds."""

from __future__ import annotations

from shashin.metrics.core import counter, gauge, histogram
from shashin.metrics.definitions import Label
from shashin.metrics.labels import SEALED_TIER

_KIND = Label("kind", "the kind of object", at_most=4)
_READY_REASON = Label("reason", "the reason of the condition Ready", at_most=24)

LEADING = gauge("shashin_controller_leading", "1 while this process is the one that works, else 0.")
RECONCILES = counter(
    "shashin_controller_reconciles",
    "Looks at objects, by kind of object and result.",
    [_KIND, Label("result", "the result", values=("ok", "conflict", "failed"))],
)
RECONCILE_SECONDS = histogram(
    "shashin_controller_reconcile_seconds",
    "Duration of a look at an object, by kind of object.",
    [_KIND],
    unit="seconds",
    buckets=(0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 30),
)
SERVINGS = gauge(
    "shashin_controller_servings",
    "IndexServings by tier and by the reason of their condition Ready.",
    [SEALED_TIER, _READY_REASON],
)
ROLLOUTS = counter(
    "shashin_controller_rollouts",
    "IndexServings whose pods all came to run a new image, by tier.",
    [SEALED_TIER],
)
ROLLOUT_SECONDS = histogram(
    "shashin_controller_rollout_seconds",
    "Time from when an IndexServing that was ready no longer was until all of its pods run a new image and "
    "are ready, by tier.",
    [SEALED_TIER],
    unit="seconds",
    buckets=(1, 2.5, 5, 10, 20, 30, 60, 120, 300, 900, 3600),
)
BUILDS = gauge(
    "shashin_controller_builds",
    "IndexBuilds by tier and phase.",
    [
        SEALED_TIER,
        Label(
            "phase",
            "the phase",
            values=("Pending", "Running", "Succeeded", "Failed", "Cancelled"),
        ),
    ],
)
BUILD_ATTEMPTS = counter(
    "shashin_controller_build_attempts",
    "Attempts at IndexBuilds that ended, by tier and by the reason of their conditions.",
    [SEALED_TIER, Label("reason", "the reason of the conditions", at_most=24)],
)
