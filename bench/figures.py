"""A figure: one measurement per run, and a goal for the median."""

from __future__ import annotations

import math
import os
import platform
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at least ``share`` of the values do not exceed."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def machine() -> str:
    """Return what figures depend on, in words: an interpreter may be twice as fast as another one."""
    python = f"Python {platform.python_version()} of {sys.base_prefix}"
    return f"{os.cpu_count()} cores, {platform.machine()}, {python}"


@dataclass
class Figure:
    """One quantity measured in several runs."""

    name: str
    unit: str
    goal: float | None = None
    """Goal for the median; None for a figure that is only reported."""
    at_least: bool = False
    """Whether the goal is a lower bound."""
    runs: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """The median of the runs."""
        return statistics.median(self.runs)

    @property
    def reached(self) -> bool | None:
        """Whether the median meets the goal; None without a goal."""
        if self.goal is None:
            return None
        return self.median >= self.goal if self.at_least else self.median <= self.goal

    def document(self) -> dict[str, Any]:
        """Return this for JSON output."""
        return {
            "name": self.name,
            "unit": self.unit,
            "median": round(self.median, 4),
            "least": round(min(self.runs), 4),
            "greatest": round(max(self.runs), 4),
            "runs": [round(run, 4) for run in self.runs],
            "goal": self.goal,
            "goal_is": "at least" if self.at_least else "at most",
            "reached": self.reached,
        }

    def row(self) -> tuple[str, ...]:
        """Return this as a row of the table."""
        goal = (
            ""
            if self.goal is None
            else f"{'≥' if self.at_least else '≤'} {self.goal:g} {self.unit}"
        )
        verdict = {None: "", True: "yes", False: "NO"}[self.reached]
        spread = f"{min(self.runs):.3g} to {max(self.runs):.3g}"
        return (self.name, f"{self.median:.3g} {self.unit}", spread, goal, verdict)
