"""The rules with shorter durations, so that a drill takes seconds instead of hours. Pure."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from typing import Any

SHORTEST_WINDOW_SECONDS = 5.0
"""A window that is divided is at least so long: with a scrape per second, ``rate`` needs a few in it."""
INTERVAL = "1s"
"""At which every group is evaluated."""

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(\d+)(ms|s|m|h|d)")
_WINDOW = re.compile(r"\[(\d+(?:ms|s|m|h|d))\]")
_OFFSET = re.compile(r"\boffset (\d+(?:ms|s|m|h|d))\b")
_AGE = re.compile(r"(time\(\) - [^<>]*[<>] |_lag_seconds\)? > )(\d+)")


def sped_up(rules: Mapping[str, Any], factors: Mapping[str, float]) -> dict[str, Any]:
    """Return a file of rules (``{"groups": [...]}``) with the durations of each group divided by its factor.

    Divided are ``for``, the windows of ranges (down to ``SHORTEST_WINDOW_SECONDS``), what an ``offset``
    goes back by, and a limit in seconds that an age is compared with: ``time() - ... > 300``, or a metric
    that ends with ``_lag_seconds``.

    Kept are all expressions otherwise, with every metric, label, share and number that they compare, and the
    annotations. So what is shown is that the metrics of running processes make the alert fire and end, and
    what it says. It is not shown that windows and ``for`` are chosen well for a system in use: promtool
    shows when alerts fire in time and when not (tests/unit/monitoring). Limits in seconds that are no time
    to wait for, a skew of clocks or the five seconds of freshness, have to be exceeded as they are.

    ``factors`` is by name of a group; a group that is not in it keeps its durations.
    """
    document = copy.deepcopy(dict(rules))
    for group in document["groups"]:
        group["interval"] = INTERVAL
        if (factor := factors.get(group["name"])) is None:
            continue
        for rule in group["rules"]:
            rule["expr"] = _expression(rule["expr"], factor)
            if "for" in rule:
                rule["for"] = _written(_seconds(rule["for"]) / factor)
    return document


def _expression(expr: str, factor: float) -> str:
    def window(found: re.Match[str]) -> str:
        return f"[{_written(_shortened(found[1], factor))}]"

    def offset(found: re.Match[str]) -> str:
        return f"offset {_written(_shortened(found[1], factor))}"

    def age(found: re.Match[str]) -> str:
        return f"{found[1]}{float(found[2]) / factor:g}"

    return _AGE.sub(age, _OFFSET.sub(offset, _WINDOW.sub(window, expr)))


def _shortened(duration: str, factor: float) -> float:
    """Return the seconds of a window; one that is short enough already stays."""
    seconds = _seconds(duration)
    return max(seconds / factor, min(seconds, SHORTEST_WINDOW_SECONDS))


def _seconds(duration: str) -> float:
    """Return the seconds of a duration of Prometheus, such as 90m or 1h30m."""
    if "".join(f"{n}{unit}" for n, unit in _DURATION.findall(duration)) != duration or not duration:
        raise ValueError(f"{duration!r} is no duration")
    return sum(int(number) * _UNITS[unit] for number, unit in _DURATION.findall(duration))


def _written(seconds: float) -> str:
    return f"{max(1, round(seconds * 1000))}ms"
