"""The files of rules: for Prometheus, and for the Prometheus operator."""

from __future__ import annotations

from typing import Any

import yaml

from monitoring import alerts
from monitoring.model import Group
from monitoring.objectives import OBJECTIVES

_HEADER = "# Written by `make docs` from monitoring/*.py.\n"


def groups() -> list[Group]:
    """Return all rules."""
    return [
        Group(
            "shashin.objectives",
            [record for objective in OBJECTIVES for record in objective.records()],
            interval="30s",
        ),
        Group(
            "shashin.promises",
            [alert for objective in OBJECTIVES for alert in objective.alerts()],
        ),
        Group("shashin.searching", [*alerts.SEARCHING]),
        Group("shashin.pipeline", [*alerts.PIPELINE]),
        Group("shashin.tiers", [*alerts.TIERS]),
        Group("shashin.processes", [*alerts.PROCESSES]),
    ]


def rule_file() -> str:
    """Return a file of rules for Prometheus."""
    return _HEADER + _yaml({"groups": [group.document() for group in groups()]})


def prometheus_rule() -> str:
    """Return them as an object of the Prometheus operator."""
    return _HEADER + _yaml(
        {
            "apiVersion": "monitoring.coreos.com/v1",
            "kind": "PrometheusRule",
            "metadata": {"name": "shashin"},
            "spec": {"groups": [group.document() for group in groups()]},
        }
    )


def _yaml(document: dict[str, Any]) -> str:
    text: str = yaml.safe_dump(document, sort_keys=False, width=100, allow_unicode=True)
    return text
