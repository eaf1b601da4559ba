"""Asks a Prometheus, and names the series of its answers as Grafana does."""

from __future__ import annotations

import json
import re
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_LABEL = re.compile(r"\{\{\s*([a-zA-Z_][a-zA-Z0-9_]*)\s*\}\}")
_SECONDS = 10.0


@dataclass(frozen=True)
class Series:
    """A series of an answer."""

    labels: Mapping[str, str]
    points: list[tuple[float, float]]
    """Unix seconds and value, ascending."""

    def named(self, legend: str) -> str:
        """Return its name for a legend such as ``{{tier}} p99``."""
        if legend:
            return _LABEL.sub(lambda label: self.labels.get(label.group(1), ""), legend)
        return ", ".join(f"{key}={value}" for key, value in sorted(self.labels.items())) or "value"


def with_variables(expr: str, *, rate_interval: str) -> str:
    """Return a query of a dashboard as Grafana sends it, for every process."""
    return expr.replace("$__rate_interval", rate_interval).replace("$instance", ".*")


def instant(address: str, expr: str) -> list[Series]:
    """Return the series of a query now; raises OSError or ValueError if it is refused."""
    found = _asked(address, "query", query=expr)
    if found["resultType"] == "scalar":
        at, value = found["result"]
        return [Series({}, [(float(at), float(value))])]
    return [
        Series(one["metric"], [(float(one["value"][0]), float(one["value"][1]))])
        for one in found["result"]
    ]


def over_time(address: str, expr: str, start: float, end: float, step: float) -> list[Series]:
    """Return the series of a query over a time."""
    found = _asked(address, "query_range", query=expr, start=start, end=end, step=step)
    return [
        Series(one["metric"], [(float(at), float(value)) for at, value in one["values"]])
        for one in found["result"]
    ]


def _asked(address: str, what: str, **parameters: object) -> Any:
    url = f"{address}/api/v1/{what}?{urllib.parse.urlencode(parameters)}"
    with urllib.request.urlopen(url, timeout=_SECONDS) as answer:  # noqa: S310
        document = json.load(answer)
    if document["status"] != "success":
        raise ValueError(f"Prometheus refused {parameters}: {document}")
    return document["data"]
