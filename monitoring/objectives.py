"""What users are promised, and the alerts for promises that are being broken.

An objective is a share of good events. Its error budget is the rest. An alert fires when the budget is used
up so fast that a person has to look: at once if an hour takes 2 % of a month's budget, or 6 hours take 5 %;
in working hours if 3 days take 10 %. Each of them looks at a short window as well, so that it ends soon after
the cause does.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from monitoring.model import Alert, Record

FRESH_SECONDS = 5
"""A listing should be searchable so many seconds after its event."""

SEARCH = 'method="Search"'
ROUTERS = 'and on (instance) shashin_service_info{service="router"}'
"""Index servers have a method of this name, too."""
_SINCE_EVENT = "shashin_pipeline_since_event_seconds"
_ROUTERS = ROUTERS.replace("{", "{{").replace("}", "}}")
_CALLERS_FAULT = (
    "OK|INVALID_ARGUMENT|NOT_FOUND|CANCELLED|FAILED_PRECONDITION|UNAUTHENTICATED|RATE_LIMITED"
)
"""Answers that are no fault of the system."""


@dataclass(frozen=True)
class Objective:
    """A promise to users."""

    name: str
    target: float
    """Share of events that are good."""
    bad: str
    """PromQL: the rate of bad events over ``{window}``."""
    total: str
    """PromQL: the rate of all events over ``{window}``."""
    means: str
    """What it means for users that it is broken; completes "... of"."""

    def recorded(self, window: str) -> str:
        """Return the name of the recorded share of bad events over a window."""
        return f"shashin:{self.name}:bad_ratio_rate{window}"

    def records(self) -> Iterator[Record]:
        """Yield the recording rules of all windows."""
        for window in _WINDOWS:
            bad, total = self.bad.format(window=window), self.total.format(window=window)
            # No bad event may have happened yet: then the series does not exist.
            yield Record(self.recorded(window), f"({bad} or {total} * 0) / ({total} > 0)")

    def alerts(self) -> Iterator[Alert]:
        """Yield its alerts."""
        title = self.name.capitalize()
        for burn in _BURNS:
            limit = f"{burn.factor * (1 - self.target):.6g}"
            yield Alert(
                f"Shashin{title}BudgetBurn{burn.suffix}",
                f"{self.recorded(burn.long)} > {limit} and {self.recorded(burn.short)} > {limit}",
                severity=burn.severity,
                summary=f"{{{{ $value | humanizePercentage }}}} of {self.means} over the last {burn.long}",
                description=(
                    f"Of the {1 - self.target:.2%} that may be so in a month, this uses {burn.uses}."
                ),
                runbook=f"Shashin{title}BudgetBurn",
            )


@dataclass(frozen=True)
class _Burn:
    suffix: str
    long: str
    short: str
    factor: float
    severity: Literal["critical", "warning"]
    uses: str


_BURNS = (
    _Burn("Fast", "1h", "5m", 14.4, "critical", "2 % in an hour"),
    _Burn("Slow", "6h", "30m", 6.0, "critical", "5 % in 6 hours"),
    _Burn("Steady", "3d", "6h", 1.0, "warning", "10 % in 3 days"),
)
_WINDOWS = ("5m", "30m", "1h", "6h", "3d")

OBJECTIVES = (
    Objective(
        "availability",
        0.999,
        f'sum(rate(shashin_rpc_answers_total{{{{{SEARCH},status!~"{_CALLERS_FAULT}"}}}}[{{window}}]) '
        f"{_ROUTERS})",
        f"sum(rate(shashin_rpc_answers_total{{{{{SEARCH}}}}}[{{window}}]) {_ROUTERS})",
        "searches failed",
    ),
    Objective(
        "completeness",
        0.999,
        "sum(rate(shashin_router_incomplete_answers_total[{window}]))",
        'sum(rate(shashin_router_search_seconds_count{{stage="total"}}[{window}]))',
        "searches left out a part of the listings",
    ),
    Objective(
        "freshness",
        0.99,
        f'sum(rate({_SINCE_EVENT}_count{{{{stage="searchable"}}}}[{{window}}])) '
        f'- sum(rate({_SINCE_EVENT}_bucket{{{{stage="searchable",le="{FRESH_SECONDS}.0"}}}}[{{window}}]))',
        f'sum(rate({_SINCE_EVENT}_count{{{{stage="searchable"}}}}[{{window}}]))',
        f"listings took longer than {FRESH_SECONDS} seconds to become searchable",
    ),
)
