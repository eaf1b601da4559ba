"""Builds as text and JSON. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from shashin.builds.document import Spec
from shashin.builds.records import RecordedBuild
from shashin.builds.status import BuildStatus, Phase, StepStatus
from shashin.builds.step_reports import Progress
from shashin.errors import ShashinError
from shashin.terminal.console import megabytes, seconds

COLUMNS = ["build", "phase", ">steps", ">attempts", "started", ">took", "reason"]
STEP_COLUMNS = ["step", "phase", ">attempt", ">took", ">exit code", ">done", ">output", "reason"]
FILE_COLUMNS = ["step", "file", ">bytes", "SHA-256"]
NO_WRAP_COLUMNS = ["build"]

_SHOWN_SHARDS = 10
_STYLES: Mapping[Phase, str] = {"Succeeded": "green", "Failed": "red", "Cancelled": "yellow"}


def style_of(phase: Phase) -> str:
    """Return the style of a line about a build in this phase."""
    return _STYLES.get(phase, "")


def row_of(recorded: RecordedBuild) -> tuple[object, ...]:
    """Return a build's row for ``COLUMNS``."""
    status = recorded.status
    succeeded = sum(step.phase == "Succeeded" for step in status.steps)
    running = status.running_step
    return (
        recorded.build.name,
        status.phase if running is None else f"{status.phase}: {running.name}",
        f"{succeeded}/{len(status.steps)}",
        status.attempts,
        _time(status.started),
        seconds(_took(status)),
        status.reason,
    )


def step_row(status: BuildStatus, step: StepStatus) -> tuple[object, ...]:
    """Return a step's row for ``STEP_COLUMNS``."""
    return (
        step.name,
        "kept" if status.kept(step) else step.phase,
        step.attempt or "-",
        seconds(step.seconds),
        "-" if step.exit_code is None else step.exit_code,
        _done(step),
        megabytes(sum(file.size for file in step.outputs)) if step.outputs else "-",
        step.reason,
    )


def file_rows(status: BuildStatus) -> list[tuple[object, ...]]:
    """Return the rows of all output files for ``FILE_COLUMNS``."""
    return [
        (step.name, file.path, f"{file.size:,}", file.sha256)
        for step in status.steps
        for file in step.outputs
    ]


def whole_rows(recorded: RecordedBuild) -> list[tuple[object, ...]]:
    """Return everything about a build but its steps, as names and values."""
    status, spec = recorded.status, recorded.build.spec
    return [
        ("phase", status.phase),
        *([("reason", status.reason)] if status.reason else []),
        *(("label", f"{k}={v}") for k, v in recorded.build.metadata.labels.items()),
        ("model", f"{spec.model}, {spec.dimensions} dimensions"),
        ("tier", spec.tier),
        ("window", f"{_time(spec.window.start)} to {_time(spec.window.end)}"),
        ("source", _source(spec)),
        ("index", "the default" if spec.index is None else spec.index.kind),
        ("minimum recall", spec.minimum_recall),
        *([("repository", status.repository)] if status.repository else []),
        ("attempts", status.attempts),
        ("created", _time(status.created)),
        ("started", _time(status.started)),
        ("finished", _time(status.finished)),
    ]


def summary_document(recorded: RecordedBuild) -> dict[str, Any]:
    """Return a build as an entry of a list in JSON."""
    fields = recorded.status.document()
    names = ("phase", "reason", "attempts", "created", "started", "finished")
    return {
        "name": recorded.build.name,
        **{name: fields.get(name) for name in names},
        "steps": {step.name: step.phase for step in recorded.status.steps},
    }


def unreadable_document(name: str, error: ShashinError) -> dict[str, Any]:
    """Return a record that cannot be read as an entry of a list in JSON."""
    return {"name": name, "error": error.message}


def whole_document(recorded: RecordedBuild) -> dict[str, Any]:
    """Return everything about a build in JSON."""
    return {"build": recorded.build.document(), "status": recorded.status.document()}


def rate_text(progress: Progress | None, took: float | None) -> str:
    """Return how many units a step does per second; empty if that is not known."""
    if progress is None or not took:
        return ""
    return f"{progress.done / took:,.0f} {progress.unit}/s"


def ending_text(name: str, status: BuildStatus) -> str:
    """Return in one line how a build ended."""
    step = next((s for s in status.steps if s.phase == status.phase != "Succeeded"), None)
    at = f" at step {step.name}" if step is not None else ""
    verb = {"Succeeded": "succeeded", "Failed": "failed", "Cancelled": "was cancelled"}
    text = f"build {name} {verb.get(status.phase, status.phase)}{at}"
    if status.phase != "Succeeded":
        return f"{text}: {status.reason}"
    kept = [s.name for s in status.steps if status.kept(s)]
    if len(kept) == len(status.steps):
        return f"{text} before, and nothing has changed since: no step had to run"
    return f"{text} in {seconds(_took(status))}" + (f"; kept {', '.join(kept)}" if kept else "")


def _took(status: BuildStatus) -> float | None:
    if status.started is None or status.finished is None:
        return None
    return (status.finished - status.started).total_seconds()


def _done(step: StepStatus) -> str | tuple[str, ...]:
    if step.progress is None:
        return "-"
    progress = step.progress
    total = "" if progress.total is None else f"/{progress.total:,.0f}"
    rate = rate_text(progress, step.seconds)
    return (f"{progress.done:,.0f}{total} {progress.unit}", *([rate] if rate else []))


def _source(spec: Spec) -> str | tuple[str, ...]:
    if spec.source.reindex is not None:
        return f"photos of {spec.source.reindex.from_model}, embedded again"
    shards: Sequence[str] = spec.source.shards or ()
    more = len(shards) - _SHOWN_SHARDS
    return (*shards[:_SHOWN_SHARDS], *([f"and {more} more"] if more > 0 else []))


def _time(moment: datetime | None) -> str:
    return "-" if moment is None else f"{moment:%Y-%m-%d %H:%M:%S} UTC"
