"""Metrics of the controller."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

LEADING = Gauge("shashin_controller_leading", "1 while this process is the one that works, else 0.")
RECONCILES = Counter(
    "shashin_controller_reconciles",
    "Looks at objects, by kind of object and result: ok, conflict or failed.",
    ["kind", "result"],
)
RECONCILE_SECONDS = Histogram(
    "shashin_controller_reconcile_seconds",
    "Duration of a look at an object, in seconds, by kind of object.",
    ["kind"],
    buckets=(0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 30),
)
SERVINGS = Gauge(
    "shashin_controller_servings",
    "IndexServings by tier and by the reason of their condition Ready.",
    ["tier", "reason"],
)
ROLLOUTS = Counter(
    "shashin_controller_rollouts",
    "IndexServings whose pods all came to run a new image, by tier.",
    ["tier"],
)
BUILDS = Gauge("shashin_controller_builds", "IndexBuilds by tier and phase.", ["tier", "phase"])
BUILD_ATTEMPTS = Counter(
    "shashin_controller_build_attempts",
    "Attempts at IndexBuilds that ended, by tier and by the reason of their conditions.",
    ["tier", "reason"],
)
