"""The status of an IndexBuild on Kubernetes, as its controller writes it."""

from __future__ import annotations

from datetime import datetime

from shashin.builds.status import Phase
from shashin.documents.conditions import Condition
from shashin.documents.parts import Part


class StepResult(Part):
    """How far one step is."""

    name: str
    phase: Phase = "Pending"
    attempt: int = 0
    """The build's attempt in which the step last ran; 0: never."""
    start_time: datetime | None = None
    completion_time: datetime | None = None
    exit_code: int | None = None
    reason: str = ""
    """Why it failed, or why it runs again though it had succeeded."""
    done: int | None = None
    """How much of ``total`` is done."""
    total: int | None = None
    unit: str = ""
    """What ``done`` and ``total`` count, such as rows."""
    fingerprint: str = ""
    """Hash of all that its output depends on: a retry keeps a step that has the same as before."""


class IndexBuildStatus(Part):
    """What was observed of a build; written by the controller."""

    observed_generation: int = 0
    """The generation of the spec that the rest is about."""
    phase: Phase = "Pending"
    step: str = ""
    """The step that runs, or that failed."""
    attempts: int = 0
    reason: str = ""
    """Why it failed or was cancelled."""
    start_time: datetime | None = None
    """Start of the last attempt."""
    completion_time: datetime | None = None
    steps: tuple[StepResult, ...] = ()
    """In the order of the pipeline."""
    shards: tuple[str, ...] = ()
    """Ids of the shards that it published."""
    retry: str = ""
    """The value of the annotation shashin.dev/retry that was followed last."""
    conditions: tuple[Condition, ...] = ()
