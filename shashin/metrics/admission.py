"""Load that a router sheds, and by what it decides that."""

from __future__ import annotations

from shashin.metrics.core import counter, gauge, histogram
from shashin.metrics.definitions import Label

SHED = counter(
    "shashin_router_shed_calls",
    "Calls that were refused as too many, by what is exhausted: arrivals (the router itself cannot answer as "
    "many), or in_progress (endpoints cannot answer as many in time).",
    [Label("exhausted", "what is exhausted", values=("arrivals", "in_progress"))],
)
LIMIT = gauge(
    "shashin_router_work_limit",
    "Work that may be in progress at once, in queries by one vector; it shrinks while answers are late.",
)
IN_PROGRESS = gauge(
    "shashin_router_work_in_progress", "Work that is in progress, in queries by one vector."
)
REFUSED_SHARE = gauge(
    "shashin_router_refused_ratio",
    "Share of arriving calls that is refused, since calls wait too long before they are looked at.",
    unit="ratio",
)
WAIT_SECONDS = histogram(
    "shashin_router_wait_seconds",
    "How long a call waits until the router looks at it: how late its event loop is, twenty times a second while "
    "there are calls.",
    unit="seconds",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5),
)
