"""The status of an IndexServing, from what is there. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from services.controller.conditions import Finding, conditions
from services.controller.serving_objects import CONTAINER
from shashin.kube.resource import KubeObject
from shashin.offsets.ranges import MergedRanges
from shashin.servings.document import IndexServing, ServingStatus

AVAILABLE, READY = "Available", "Ready"
REDUNDANT = "Redundant"
"""Whether a serving may be deleted: its rows are served by others, or by nobody anyway. The admission
policy in k8s/base reads it."""
DUPLICATE = "Duplicate"

_MAX_NAMES = 5

_PULL_REASONS = {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"}
_PULL_REASONS |= {"RegistryUnavailable", "SignatureValidationFailed", "ImageInspectError"}
_CONFIG_REASONS = {"CreateContainerConfigError", "CreateContainerError", "RunContainerError"}


@dataclass(frozen=True)
class Pods:
    """The pods of one serving."""

    all: Sequence[KubeObject]

    @property
    def ready(self) -> list[KubeObject]:
        """Those that serve, and go on to."""
        return [pod for pod in self.all if not _ends(pod) and _is_ready(pod)]

    @property
    def images(self) -> set[str]:
        """The images that ready pods run."""
        return {_image(pod) for pod in self.ready}

    def trouble(self, image: str) -> Finding | None:
        """Return why pods with an image do not become ready, if it can be seen."""
        for pod in sorted(self.all, key=lambda one: str(one["metadata"]["name"])):
            if _image(pod) == image and not _ends(pod) and not _is_ready(pod):
                found = _trouble(pod)
                if found is not None:
                    return found
        return None


@dataclass(frozen=True)
class Served:
    """A serving with what is there for it."""

    serving: IndexServing
    owner: KubeObject
    """It as the API server has it."""
    deployment: KubeObject | None
    pods: Pods

    @property
    def rolled_out(self) -> bool:
        """Whether as many pods serve its image as it wants, and no other pods serve."""
        wanted = self.serving.spec.replicas
        return (
            self.deployment is not None
            and _observed(self.deployment)
            and len(self.pods.ready) == wanted
            and self.pods.images <= {self.serving.spec.image}
        )

    @property
    def serves_its_shards(self) -> bool:
        """Whether a search finds all of its shards, whichever ready pod answers."""
        return self.pods.images == {self.serving.spec.image} and not self._goes

    @property
    def _goes(self) -> bool:
        return "deletionTimestamp" in self.owner["metadata"]


def status_of(
    served: Served, others: Collection[Served], before: ServingStatus, now: datetime
) -> ServingStatus:
    """Return the status of a serving; ``others`` are the namespace's other ones."""
    generation = int(served.owner["metadata"].get("generation", 0))
    ready = served.pods.ready
    images = served.pods.images
    findings = [
        _available(served),
        _ready(served),
        _redundant(served, others, before),
        _duplicate(served, others),
    ]
    return ServingStatus(
        observed_generation=generation,
        replicas=len(served.pods.all),
        ready_replicas=len(ready),
        # The last image that all ready pods ran, also while none is ready.
        image=images.pop() if len(images) == 1 else before.image,
        conditions=conditions(findings, before.conditions, generation, now),
    )


def invalid_status(
    owner: KubeObject, problem: str, before: ServingStatus, now: datetime
) -> ServingStatus:
    """Return the status of a serving whose document cannot be used: whatever serves stays."""
    generation = int(owner["metadata"].get("generation", 0))
    kept = [
        Finding(one.type, one.status, one.reason, one.message)
        for one in before.conditions
        if one.type != READY
    ]
    findings = [Finding(READY, "False", "Invalid", problem), *kept]
    return before.model_copy(
        update={
            "observed_generation": generation,
            "conditions": conditions(findings, before.conditions, generation, now),
        }
    )


def _available(served: Served) -> Finding:
    ready = len(served.pods.ready)
    if not ready:
        return Finding(AVAILABLE, "False", "NoPodReady", "no pod is ready")
    return Finding(AVAILABLE, "True", "PodsReady", f"{_counted(ready, 'pod')} ready")


def _ready(served: Served) -> Finding:
    wanted, image = served.serving.spec.replicas, served.serving.spec.image
    if served.rolled_out:
        if not wanted:
            return Finding(READY, "True", "ScaledToZero", "no pod is wanted")
        return Finding(READY, "True", "RolledOut", f"{_counted(wanted, 'pod')} ready")
    new = sum(_image(pod) == image for pod in served.pods.ready)
    state = f"{new} of {_counted(wanted, 'pod')} serve the image"
    old = len(served.pods.ready) - new
    if old:
        state += f", {_counted(old, 'pod')} with another one still serve"
    trouble = served.pods.trouble(image)
    if trouble is not None:
        return Finding(READY, "False", trouble.reason, f"{trouble.message}; {state}")
    late = _late(served.deployment)
    if late:
        return Finding(READY, "False", "NotReadyInTime", f"{late}; {state}: see its pods' /healthz")
    return Finding(READY, "False", "Rolling", state)


def _redundant(served: Served, others: Collection[Served], before: ServingStatus) -> Finding:
    if not served.serving.spec.replicas:
        return Finding(REDUNDANT, "True", "ScaledToZero", "it serves nothing")
    if not served.pods.ready and not before.image:
        return Finding(REDUNDANT, "True", "NeverServed", "none of its pods was ever ready")
    elsewhere = MergedRanges(
        offsets
        for other in others
        if other.serving.spec.model == served.serving.spec.model and other.serves_its_shards
        for offsets in other.serving.ranges
    )
    if elsewhere.contain_all(served.serving.ranges):
        return Finding(REDUNDANT, "True", "ServedElsewhere", "others serve all of its offsets")
    alone = [
        shard.id
        for shard in served.serving.spec.shards
        if not elsewhere.contain_all([r.offsets for r in shard.ranges])
    ]
    return Finding(
        REDUNDANT, "False", "OnlyOne", f"nothing else serves all offsets of {_listed(alone)}"
    )


def _duplicate(served: Served, others: Collection[Served]) -> Finding:
    own = {shard.id for shard in served.serving.spec.shards}
    same: Mapping[str, list[str]] = {
        other.serving.metadata.name: shared
        for other in others
        if (shared := sorted(own & {shard.id for shard in other.serving.spec.shards}))
    }
    if not same:
        return Finding(DUPLICATE, "False", "OnlyOne")
    listed = "; ".join(f"{name}: {_listed(shared)}" for name, shared in sorted(same.items()))
    return Finding(
        DUPLICATE,
        "True",
        "SharesShards",
        f"other servings have some of its shards, which costs memory and is normal only while shards "
        f"move: {listed}",
    )


# --- deployments and pods -----------------------------------------------------------------------


def _observed(deployment: KubeObject) -> bool:
    generation = int(deployment["metadata"].get("generation", 0))
    return int((deployment.get("status") or {}).get("observedGeneration", 0)) >= generation


def _late(deployment: KubeObject | None) -> str:
    """Return why a rollout is not over in time, as the Deployment says; empty if it may yet be."""
    for one in ((deployment or {}).get("status") or {}).get("conditions") or ():
        if one.get("type") == "Progressing" and one.get("reason") == "ProgressDeadlineExceeded":
            return str(one.get("message") or "the rollout takes too long")
        if one.get("type") == "ReplicaFailure" and one.get("status") == "True":
            return str(one.get("message") or "pods cannot be created")
    return ""


def _ends(pod: KubeObject) -> bool:
    return "deletionTimestamp" in pod["metadata"]


def _is_ready(pod: KubeObject) -> bool:
    return any(
        one.get("type") == "Ready" and one.get("status") == "True"
        for one in (pod.get("status") or {}).get("conditions") or ()
    )


def _image(pod: KubeObject) -> str:
    for container in (pod.get("spec") or {}).get("containers") or ():
        if container.get("name") == CONTAINER:
            return str(container.get("image", ""))
    return ""


def _trouble(pod: KubeObject) -> Finding | None:
    name, status = pod["metadata"]["name"], pod.get("status") or {}
    for one in status.get("containerStatuses") or ():
        state = one.get("state") or {}
        waiting = state.get("waiting") or {}
        reason = waiting.get("reason")
        if reason in _PULL_REASONS:
            return _finding("ImagePullFailed", name, waiting.get("message") or reason)
        if reason in _CONFIG_REASONS:
            return _finding("CannotStart", name, waiting.get("message") or reason)
        last = (one.get("lastState") or {}).get("terminated") or state.get("terminated")
        if last is not None and (reason == "CrashLoopBackOff" or not state.get("running")):
            return _finding("Crashing", name, _ended(last))
    for one in status.get("conditions") or ():
        if one.get("type") == "PodScheduled" and one.get("status") == "False":
            return _finding("Unschedulable", name, one.get("message") or "no node takes it")
    return None


def _finding(reason: str, pod: str, message: Any) -> Finding:
    return Finding(READY, "False", reason, f"pod {pod}: {message}")


def _ended(terminated: Mapping[str, Any]) -> str:
    text = f"its container ended with exit code {terminated.get('exitCode')}"
    if terminated.get("reason") not in {None, "Error", "Completed"}:
        text += f" ({terminated['reason']})"
    if terminated.get("message"):
        text += f": {terminated['message']}"
    return f"{text}; `kubectl logs --previous` shows why"


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_MAX_NAMES])
    return shown if len(names) <= _MAX_NAMES else f"{shown} and {len(names) - _MAX_NAMES} more"
