"""Conditions of objects, made of what is found of them. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from shashin.documents.conditions import Condition

Verdict = Literal["True", "False", "Unknown"]


@dataclass(frozen=True)
class Finding:
    """What is found of one condition."""

    type: str
    status: Verdict
    reason: str
    message: str = ""


def conditions(
    findings: Iterable[Finding], before: Iterable[Condition], generation: int, now: datetime
) -> tuple[Condition, ...]:
    """Return conditions, which keep the time of their last transition as long as the status is equal."""
    known = {one.type: one for one in before}
    made = []
    for found in findings:
        old = known.get(found.type)
        same = old is not None and old.status == found.status
        made.append(
            Condition(
                type=found.type,
                status=found.status,
                observed_generation=generation,
                last_transition_time=old.last_transition_time if old and same else now,
                reason=found.reason,
                message=found.message[:4096],
            )
        )
    return tuple(sorted(made, key=lambda one: one.type))
