"""IndexBuilds, Jobs and pods as the API server has them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from services.controller.build_job import ATTEMPT_LABEL, UID_LABEL
from shashin.builds.document import IndexBuild
from shashin.kube.resource import KubeObject

UID = "6d6b4f5e-0000-4000-8000-000000000001"
BEGAN = "2026-11-27T12:00:00Z"


def build_object(build: IndexBuild, *, uid: str = UID, **annotations: str) -> KubeObject:
    """Return a build in the namespace ``shop``; annotations are named without their prefix."""
    found = build.document()
    found["metadata"] |= {
        "namespace": "shop",
        "uid": uid,
        "generation": 1,
        "resourceVersion": "7",
        "creationTimestamp": BEGAN,
        "annotations": {f"shashin.dev/{name}": value for name, value in annotations.items()},
    }
    return found


def ended(code: int = 0, *, at: str = BEGAN, reason: str = "", message: str = "") -> dict[str, Any]:
    """Return the state of a container that has ended."""
    state = {"exitCode": code, "startedAt": BEGAN, "finishedAt": at}
    state |= {"reason": reason or ("Error" if code else "Completed")}
    return {"terminated": state | ({"message": message} if message else {})}


def running(*, since: str = BEGAN) -> dict[str, Any]:
    """Return the state of a container that runs."""
    return {"running": {"startedAt": since}}


def waits(reason: str = "PodInitializing", message: str = "") -> dict[str, Any]:
    """Return the state of a container that has not begun."""
    return {"waiting": {"reason": reason} | ({"message": message} if message else {})}


def pod(
    states: Mapping[str, Mapping[str, Any]],
    *,
    attempt: int = 1,
    phase: str = "Running",
    created: str = BEGAN,
    **status: Any,
) -> KubeObject:
    """Return the pod of an attempt; the last of its containers is no init container."""
    named = [{"name": name, "state": state} for name, state in states.items()]
    return {
        "metadata": {
            "name": f"demo-daily-{attempt}-x",
            "namespace": "shop",
            "creationTimestamp": created,
            "labels": {ATTEMPT_LABEL: str(attempt), UID_LABEL: UID},
        },
        "status": {
            "phase": phase,
            "initContainerStatuses": named[:-1],
            "containerStatuses": named[-1:],
            **status,
        },
    }


def job(condition: str = "", *, reason: str = "", message: str = "") -> KubeObject:
    """Return a Job that is over by a condition, Complete or Failed; by default it runs."""
    conditions = [{"type": condition, "status": "True", "reason": reason, "message": message}]
    return {
        "metadata": {"name": "demo-daily-1", "namespace": "shop", "creationTimestamp": BEGAN},
        "status": {"conditions": conditions if condition else []},
    }
