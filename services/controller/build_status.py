"""The status of an IndexBuild: from what is there of its Job, and when an attempt is over. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from services.controller.attempt_pods import (
    ending_of_job,
    loss_of,
    pod_of,
    published_shards,
    reason_of,
    runs,
    states_of,
    time_of,
    waiting_reason,
)
from services.controller.conditions import Finding, Verdict, conditions
from shashin.builds.prepare_codes import INVALID, LOST_OUTPUT
from shashin.builds.resource_status import IndexBuildStatus, StepResult
from shashin.builds.status import ENDED, Phase
from shashin.builds.step_reports import parse_result
from shashin.kube.resource import KubeObject

PROGRESSING: Final = "Progressing"
SUCCEEDED: Final = "Succeeded"
FAILED: Final = "Failed"

CANCELLED: Final = "Cancelled"
TIMED_OUT: Final = "StepTimedOut"
CANNOT_START: Final = "StepCannotStart"
ENDED_BY_CONTROLLER: Final = frozenset({CANCELLED, TIMED_OUT, CANNOT_START})
"""Reasons of conditions of attempts of which pods may run on."""

Fingerprints = Sequence[tuple[str, str]]
"""The name and the fingerprint of each step, in order."""


@dataclass(frozen=True)
class Limit:
    """When an attempt counts as failed unless it goes on before."""

    at: datetime
    word: str
    """For programs."""
    reason: str


# --- what a retry keeps -------------------------------------------------------------------------


def steps_to_run(
    before: IndexBuildStatus, fingerprints: Fingerprints, *, kept: bool
) -> tuple[str, ...]:
    """Return the steps that the next attempt has to run: the last ones of the pipeline, at least one.

    ``kept`` is whether what steps have made outlives an attempt.
    """
    names = [name for name, _ in fingerprints]
    first = 0
    while (
        kept
        and first < min(len(names) - 1, len(before.steps))
        and before.steps[first].phase == "Succeeded"
        and (before.steps[first].name, before.steps[first].fingerprint) == fingerprints[first]
    ):
        first += 1
    return tuple(names[first:])


# --- changes that the controller decides on -----------------------------------------------------


def begun(
    before: IndexBuildStatus,
    fingerprints: Fingerprints,
    run: Sequence[str],
    *,
    attempt: int,
    generation: int,
    now: datetime,
) -> IndexBuildStatus:
    """Return the status of an attempt that begins with the first of the steps that it runs."""
    earlier = {step.name: step for step in before.steps}
    steps = tuple(
        StepResult(name=name, fingerprint=fingerprint) if name in set(run) else earlier[name]
        for name, fingerprint in fingerprints
    )
    status = before.model_copy(
        update={
            "observed_generation": generation,
            "phase": "Running",
            "step": run[0],
            "attempts": attempt,
            "reason": "",
            "start_time": now,
            "completion_time": None,
            "steps": steps,
            "shards": (),
        }
    )
    return _with_conditions(status, before, "Running", f"attempt {attempt}: {run[0]}", now)


def waiting(
    before: IndexBuildStatus, why: str, *, generation: int, retry: str, now: datetime
) -> IndexBuildStatus:
    """Return the status of a build that is to run, and waits; ``retry`` is what it then has followed."""
    status = before.model_copy(
        update={
            "observed_generation": generation,
            "phase": "Pending",
            "step": "",
            "reason": why,
            "completion_time": None,
            "retry": retry,
        }
    )
    return _with_conditions(status, before, "Waiting", why, now)


def over(
    before: IndexBuildStatus, phase: Phase, word: str, reason: str, now: datetime
) -> IndexBuildStatus:
    """Return the status of a build that has ended, and the step that ran with it."""
    assert phase in ENDED
    step = _current(before)
    failing = phase != "Succeeded" and before.phase == "Running"
    steps = tuple(
        # Seen or not: a Job is complete once all have succeeded.
        one.model_copy(update={"phase": phase, "reason": ""})
        if phase == "Succeeded"
        else one.model_copy(
            update={
                "phase": phase,
                "attempt": before.attempts,
                "reason": reason,
                "completion_time": now,
            }
        )
        if failing and one.name == step and one.phase != "Failed"
        else one
        for one in before.steps
    )
    status = before.model_copy(
        update={
            "phase": phase,
            "step": "" if phase == "Succeeded" else step,
            "reason": "" if phase == "Succeeded" else reason,
            "completion_time": now,
            "steps": steps,
        }
    )
    return _with_conditions(status, before, word, reason, now)


def invalid(
    before: IndexBuildStatus, problem: str, *, generation: int, retry: str, now: datetime
) -> IndexBuildStatus:
    """Return the status of a build that cannot be run as it is."""
    status = before.model_copy(update={"observed_generation": generation, "retry": retry})
    return over(status, "Failed", "Invalid", problem, now)


# --- what is observed ---------------------------------------------------------------------------


def observed(
    before: IndexBuildStatus,
    job: KubeObject | None,
    pods: Sequence[KubeObject],
    now: datetime,
) -> IndexBuildStatus:
    """Return the status of a running attempt; ``pods`` are those of the build, of any attempt.

    A step that was seen to succeed stays so, and a failure stays the first one that was seen: pods may
    be gone before the next look.
    """
    assert before.phase == "Running"
    pod = pod_of(before.attempts, pods)
    states = states_of(pod)
    steps = tuple(_step(step, states.get(step.name, {}), before.attempts) for step in before.steps)
    shards = published_shards(states) or before.shards
    found = before.model_copy(update={"steps": steps, "shards": shards})
    current = _current(found)
    found = found.model_copy(update={"step": current})
    if (ending := _ending(found, job, pod, states)) is not None:
        phase, word, reason = ending
        if word == "OutputLost":
            found = _all_again(found)
        return over(found, phase, word, reason, now)
    why = waiting_reason(pod)
    word = CANNOT_START if why else "Running"
    message = f"attempt {found.attempts}: {current}" + (f" cannot start yet: {why}" if why else "")
    found = found.model_copy(update={"reason": why})
    return _with_conditions(found, before, word, message, now)


def limit_of(
    status: IndexBuildStatus,
    job: KubeObject | None,
    pods: Sequence[KubeObject],
    *,
    timeouts: Mapping[str, int],
    start_seconds: int,
) -> Limit | None:
    """Return when the running attempt fails for taking too long; None while nothing limits it.

    ``timeouts`` are the seconds that steps may run, ``start_seconds`` those that each may wait.
    """
    pod = pod_of(status.attempts, pods)
    since = time_of((pod or job or {}).get("metadata", {}).get("creationTimestamp"))
    for name, state in states_of(pod).items():
        if (ended := state.get("terminated")) is not None:
            since = time_of(ended.get("finishedAt")) or since
        elif (running := state.get("running")) is not None:
            return _time_limit(timeouts.get(name), time_of(running.get("startedAt")))
        else:
            break
    if since is None:
        return None
    why = waiting_reason(pod) or (
        "its pod was not made: `kubectl describe job` says why"
        if pod is None
        else "it is not ready"
    )
    return Limit(
        since + timedelta(seconds=start_seconds),
        CANNOT_START,
        f"it could not start within {start_seconds} seconds: {why}",
    )


def _time_limit(seconds: int | None, started: datetime | None) -> Limit | None:
    if seconds is None or started is None:
        return None
    return Limit(
        started + timedelta(seconds=seconds),
        TIMED_OUT,
        f"it took longer than its timeoutSeconds, {seconds}",
    )


def word_of(status: IndexBuildStatus) -> str:
    """Return the word that says why a build is as it is, which all of its conditions have."""
    return next((one.reason for one in status.conditions), "")


def _ending(
    found: IndexBuildStatus,
    job: KubeObject | None,
    pod: KubeObject | None,
    states: Mapping[str, Mapping[str, Any]],
) -> tuple[Phase, str, str] | None:
    """Return phase, word and reason of an attempt that has ended."""
    names = {step.name for step in found.steps}
    # The one container that is no step makes their folders.
    preparing = next(
        (state.get("terminated") for name, state in states.items() if name not in names), None
    )
    if preparing is not None and preparing["exitCode"] != 0:
        words = {INVALID: "Invalid", LOST_OUTPUT: "OutputLost"}
        word = words.get(preparing["exitCode"], "PrepareFailed")
        return "Failed", word, reason_of(preparing)
    if all(step.phase == "Succeeded" for step in found.steps):
        return "Succeeded", "StepsSucceeded", ""
    failed = next((step for step in found.steps if step.phase == "Failed"), None)
    if (lost := loss_of(pod)) is not None and (
        failed is not None or (pod is not None and not runs(pod))
    ):
        return "Failed", *lost
    if failed is not None:
        ended = states.get(failed.name, {}).get("terminated") or {}
        word = "OutOfMemory" if ended.get("reason") == "OOMKilled" else "StepFailed"
        return "Failed", word, failed.reason
    return ending_of_job(job, pod)


def _step(before: StepResult, state: Mapping[str, Any], attempt: int) -> StepResult:
    if before.phase in ENDED:
        return before
    ended, running = state.get("terminated"), state.get("running")
    if ended is None and running is None:
        return before
    started = time_of((ended or running or {}).get("startedAt")) or before.start_time
    if ended is None:
        return before.model_copy(
            update={"phase": "Running", "attempt": attempt, "start_time": started}
        )
    succeeded = ended["exitCode"] == 0
    result = parse_result(ended.get("message") or "") if succeeded else None
    progress = result.progress if result is not None else None
    return before.model_copy(
        update={
            "phase": "Succeeded" if succeeded else "Failed",
            "attempt": attempt,
            "start_time": started,
            "completion_time": time_of(ended.get("finishedAt")),
            "exit_code": ended["exitCode"],
            "reason": "" if succeeded else reason_of(ended),
            "done": None if progress is None else int(progress.done),
            "total": None if progress is None or progress.total is None else int(progress.total),
            "unit": "" if progress is None else progress.unit,
        }
    )


def _all_again(status: IndexBuildStatus) -> IndexBuildStatus:
    steps = tuple(
        StepResult(name=step.name, fingerprint=step.fingerprint, reason="its output was lost")
        for step in status.steps
    )
    return status.model_copy(update={"steps": steps})


def _current(status: IndexBuildStatus) -> str:
    return next((step.name for step in status.steps if step.phase != "Succeeded"), "")


def _with_conditions(
    status: IndexBuildStatus, before: IndexBuildStatus, word: str, message: str, now: datetime
) -> IndexBuildStatus:
    truths = {
        PROGRESSING: status.phase == "Running" and word == "Running",
        SUCCEEDED: status.phase == "Succeeded",
        FAILED: status.phase == "Failed",
    }
    findings = [Finding(kind, _verdict(holds), word, message) for kind, holds in truths.items()]
    made = conditions(findings, before.conditions, status.observed_generation, now)
    return status.model_copy(update={"conditions": made})


def _verdict(holds: bool) -> Verdict:
    return "True" if holds else "False"
