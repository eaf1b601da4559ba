"""What the pods and the Job of an attempt tell of it. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from services.controller.build_job import ATTEMPT_LABEL
from shashin.builds.status import Phase
from shashin.builds.step_reports import parse_result
from shashin.kube.resource import KubeObject

_USUAL_WAITS = {"", "PodInitializing", "ContainerCreating"}
_MAX_REASON = 2000


def pod_of(attempt: int, pods: Sequence[KubeObject]) -> KubeObject | None:
    """Return the newest pod of an attempt."""
    of_attempt = [
        pod for pod in pods if pod["metadata"].get("labels", {}).get(ATTEMPT_LABEL) == str(attempt)
    ]
    return max(
        of_attempt,
        key=lambda pod: (pod["metadata"].get("creationTimestamp", ""), pod["metadata"]["name"]),
        default=None,
    )


def states_of(pod: KubeObject | None) -> dict[str, dict[str, Any]]:
    """Return the state of each container by its name, in the order in which they run."""
    return {} if pod is None else dict(_each_state(pod.get("status", {})))


def _each_state(status: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for kind in ("initContainerStatuses", "containerStatuses"):
        for container in status.get(kind) or ():
            yield container["name"], container.get("state") or {}


def waiting_reason(pod: KubeObject | None) -> str:
    """Return why a pod does not go on, if it can be seen; empty otherwise."""
    if pod is None:
        return ""
    for state in states_of(pod).values():
        waits = state.get("waiting") or {}
        if waits.get("reason", "") not in _USUAL_WAITS:
            return joined(waits["reason"], waits.get("message"))
    for condition in pod.get("status", {}).get("conditions") or ():
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return joined(condition.get("reason", "Unschedulable"), condition.get("message"))
    return ""


def runs(pod: KubeObject) -> bool:
    """Return whether processes of a pod may still run."""
    return pod.get("status", {}).get("phase") not in {"Succeeded", "Failed"}


def finished(job: KubeObject) -> Mapping[str, Any] | None:
    """Return the condition by which a Job is over, Complete or Failed."""
    for condition in job.get("status", {}).get("conditions") or ():
        if condition["type"] in {"Complete", "Failed"} and condition["status"] == "True":
            found: Mapping[str, Any] = condition
            return found
    return None


def ending_of_job(job: KubeObject | None, pod: KubeObject | None) -> tuple[Phase, str, str] | None:
    """Return how an attempt has ended of which the steps do not tell."""
    if job is None:
        return "Failed", "JobDeleted", "its Job was deleted"
    over_by = finished(job)
    if over_by is None:
        return None
    if over_by["type"] == "Complete":
        return "Succeeded", "StepsSucceeded", ""
    if pod is None or "deletionTimestamp" in pod["metadata"]:
        return "Failed", "PodDeleted", "its pod was deleted"
    why = joined(over_by.get("reason", ""), over_by.get("message"))
    return "Failed", "JobFailed", f"its Job failed: {why}"


def loss_of(pod: KubeObject | None) -> tuple[str, str] | None:
    """Return word and reason of a pod that Kubernetes took away."""
    if pod is None:
        return None
    status = pod.get("status", {})
    if status.get("phase") == "Failed" and status.get("reason"):
        return status["reason"], _capped(
            f"its pod was ended: {joined(status['reason'], status.get('message'))}"
        )
    for condition in status.get("conditions") or ():
        if condition["type"] == "DisruptionTarget" and condition["status"] == "True":
            why = joined(condition.get("reason", ""), condition.get("message"))
            return "Disrupted", _capped(f"its pod was taken away: {why}")
    return None


def published_shards(states: Mapping[str, Mapping[str, Any]]) -> tuple[str, ...]:
    """Return the ids of the shards that steps have published."""
    return tuple(
        shard
        for state in states.values()
        if (ended := state.get("terminated")) is not None and ended["exitCode"] == 0
        for shard in parse_result(ended.get("message") or "").shards
    )


def reason_of(terminated: Mapping[str, Any]) -> str:
    """Return why a container failed."""
    code = terminated["exitCode"]
    message = (terminated.get("message") or "").strip()
    if terminated.get("reason") == "OOMKilled":
        return (
            "OOMKilled: it used more memory than its limit, or than the node has: raise "
            "SHASHIN_BUILDS_MEMORY_LIMIT of the controller if it is set, otherwise "
            "SHASHIN_BUILDS_MEMORY"
        )
    if message:
        return _capped(message)
    named = terminated.get("reason")
    return f"exit code {code}" + (f" ({named})" if named not in {None, "", "Error"} else "")


def joined(word: str, message: str | None) -> str:
    """Return a reason of Kubernetes with its message, not too long."""
    return _capped(f"{word}: {message}" if word and message else word or message or "")


def _capped(text: str) -> str:
    return text if len(text) <= _MAX_REASON else f"{text[: _MAX_REASON - 1]}…"


def time_of(text: str | None) -> datetime | None:
    """Return a time as the API has it."""
    return None if text is None else datetime.fromisoformat(text).astimezone(UTC)
