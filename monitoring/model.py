"""Rules as data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class Record:
    """A recording rule."""

    name: str
    expr: str

    def document(self) -> dict[str, Any]:
        """Return it as Prometheus reads it."""
        return {"record": self.name, "expr": self.expr}


@dataclass(frozen=True)
class Alert:
    """An alert."""

    name: str
    expr: str
    severity: Literal["critical", "warning"]
    """critical: users are affected now, or will be, or data is lost, unless somebody acts today."""
    summary: str
    description: str
    held: str = ""
    """For how long it holds before it fires; at once if empty."""
    runbook: str = ""
    """The name of its runbook, if it shares that with others."""

    def document(self) -> dict[str, Any]:
        """Return it as Prometheus reads it."""
        return {
            "alert": self.name,
            "expr": self.expr,
            **({"for": self.held} if self.held else {}),
            "labels": {"severity": self.severity},
            "annotations": {
                "summary": self.summary,
                "description": self.description,
                "runbook": self.runbook_path,
            },
        }

    @property
    def runbook_path(self) -> str:
        """The path of its runbook in this repository."""
        return f"docs/runbooks/{self.runbook or self.name}.md"


@dataclass(frozen=True)
class Group:
    """Rules that are evaluated together."""

    name: str
    rules: list[Record | Alert] = field(default_factory=list)
    interval: str = ""

    def document(self) -> dict[str, Any]:
        """Return it as Prometheus reads it."""
        return {
            "name": self.name,
            **({"interval": self.interval} if self.interval else {}),
            "rules": [rule.document() for rule in self.rules],
        }
