"""The Job of one attempt at an IndexBuild, and the ConfigMap with its document. Pure.

Every step is a container: they are init containers, since these run one after another, and the last
one is the container. Before them, one more makes the folders of the steps that run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from typing import Any, Final

from services.controller.made import CONTAINER_SECURITY, MANAGER, POD_SECURITY, owned_by
from services.controller.settings import ControllerSettings
from shashin.builds import step_variables
from shashin.builds.document import EMBED, FETCH, IndexBuild, PipelineStep
from shashin.kube.resource import KubeObject
from shashin.kube.resources import CONFIG_MAPS, JOBS

BUILD_LABEL: Final = "shashin.dev/build"
"""On everything that is made for a build; its value is the build's name."""
ATTEMPT_LABEL: Final = "shashin.dev/attempt"
UID_LABEL: Final = "shashin.dev/build-uid"
"""By which the pods of a build are told from those of an earlier one of the same name."""
OF_BUILDS: Final = BUILD_LABEL
"""Selects all objects that were made for IndexBuilds."""

BUILDS_FOLDER: Final = "/builds"
DOCUMENT_FOLDER: Final = "/document"
DOCUMENT_FILE: Final = "build.json"
ORIGINALS_FOLDER: Final = "/cache"
TERMINATION_LOG: Final = "/dev/termination-log"

RUN_STEP: Final = ("python", "-P", "-m", "shashin.builds.step")
PREPARE: Final = ("python", "-P", "-m", "shashin.builds.prepare")

_GRACE_SECONDS = 10
"""From SIGTERM to SIGKILL, as on one machine."""
_MAX_NAME = 63
"""Of a Job, since its name becomes a label's value."""
_MAX_FORGOTTEN = 100


def job_name(build: str, attempt: int) -> str:
    """Return the name of the Job of an attempt."""
    return _shortened(build, f"-{attempt}")


def document_name(build: str) -> str:
    """Return the name of the ConfigMap with a build's document."""
    return f"{build}-document"


def build_folder(owner: KubeObject) -> str:
    """Return the name of a build's folder: a later build of the same name has another one."""
    metadata = owner["metadata"]
    return f"{metadata['name']}.{metadata['uid'][:8]}"


def prepare_name(build: IndexBuild) -> str:
    """Return the name of the container that makes the folders, which is that of no step."""
    names = {step.name for step in build.spec.pipeline}
    name = "prepare"
    while name in names:
        name = f"{name[:60]}-0"
    return name


def build_document(build: IndexBuild, owner: KubeObject) -> KubeObject:
    """Return the ConfigMap with the document that the steps of an attempt read."""
    return {
        "apiVersion": CONFIG_MAPS.api_version,
        "kind": "ConfigMap",
        "metadata": {
            **owned_by(owner),
            "name": document_name(build.name),
            "labels": _labels(owner),
        },
        "data": {DOCUMENT_FILE: build.to_json().decode()},
    }


def build_job(
    build: IndexBuild,
    owner: KubeObject,
    attempt: int,
    steps: Sequence[str],
    settings: ControllerSettings,
    *,
    forgotten: Collection[str] = (),
) -> KubeObject:
    """Return the Job of an attempt that runs ``steps``, which are the last ones of the pipeline.

    ``owner`` is the build as the API server has it; ``forgotten`` are the folders of builds whose files
    nobody needs any more.
    """
    run = [step for step in build.spec.pipeline if step.name in set(steps)]
    assert run, "an attempt runs at least the last step"
    labels = {**_labels(owner), ATTEMPT_LABEL: str(attempt)}
    containers = [
        _prepare(build, owner, [step.name for step in run], settings, forgotten),
        *(_step(step, owner, settings) for step in run),
    ]
    return {
        "apiVersion": JOBS.api_version,
        "kind": "Job",
        "metadata": {
            **owned_by(owner),
            "name": job_name(build.name, attempt),
            "labels": labels,
        },
        "spec": {
            "parallelism": 1,
            "completions": 1,
            # A failed attempt is looked at, and repeated on request.
            "backoffLimit": 0,
            "podReplacementPolicy": "Failed",
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "restartPolicy": "Never",
                    "serviceAccountName": settings.builds_account,
                    "automountServiceAccountToken": False,
                    "enableServiceLinks": False,
                    "terminationGracePeriodSeconds": _GRACE_SECONDS,
                    "securityContext": POD_SECURITY,
                    "initContainers": containers[:-1],
                    "containers": containers[-1:],
                    "volumes": _volumes(build, settings),
                },
            },
        },
    }


def _prepare(
    build: IndexBuild,
    owner: KubeObject,
    run: Sequence[str],
    settings: ControllerSettings,
    forgotten: Collection[str],
) -> dict[str, Any]:
    kept = [step.name for step in build.spec.pipeline if step.name not in set(run)]
    arguments = ["--folder", f"{BUILDS_FOLDER}/{build_folder(owner)}", "--run", *run]
    if kept:
        arguments += ["--keep", *kept]
    if forgotten:
        arguments += ["--forget", *sorted(forgotten)[:_MAX_FORGOTTEN]]
    return {
        "name": prepare_name(build),
        "image": settings.builds_image,
        "command": [*PREPARE, *arguments],
        **_common(settings),
        "env": _environment({step_variables.REASON: TERMINATION_LOG}),
        "volumeMounts": _mounts(),
    }


def _step(step: PipelineStep, owner: KubeObject, settings: ControllerSettings) -> dict[str, Any]:
    folder = f"{BUILDS_FOLDER}/{build_folder(owner)}"
    variables = {
        step_variables.WORK: f"{folder}/work",
        step_variables.OUT: f"{folder}/outputs/{step.name}",
        step_variables.PROGRESS: f"{folder}/reports/{step.name}/progress.json",
        step_variables.REASON: TERMINATION_LOG,
        step_variables.RESULT: TERMINATION_LOG,
    }
    mounts = _mounts()
    if step.built_in:
        variables["SHASHIN_LOG_FORMAT"] = "json"
    if step.name == EMBED:
        variables["SHASHIN_EMBEDDER"] = settings.embedder
    if step.name == FETCH and settings.originals_claim:
        variables["SHASHIN_CACHE_FOLDER"] = ORIGINALS_FOLDER
        mounts.append({"name": "originals", "mountPath": ORIGINALS_FOLDER})
    return {
        "name": step.name,
        "image": settings.builds_image if step.built_in else step.image,
        "command": [*RUN_STEP, step.name] if step.built_in else _literal(step.command or ()),
        **_common(settings),
        "env": _environment(variables),
        "volumeMounts": mounts,
    }


def _literal(command: Sequence[str]) -> list[str]:
    # Kubernetes would replace $(HOME), which on one machine is for the shell.
    return [part.replace("$", "$$") for part in command]


def _common(settings: ControllerSettings) -> dict[str, Any]:
    sources: list[dict[str, Any]] = [{"configMapRef": {"name": settings.config_map}}]
    if settings.secret:
        sources.append({"secretRef": {"name": settings.secret}})
    resources = {"requests": {"cpu": settings.builds_cpu, "memory": settings.builds_memory}}
    if settings.builds_memory_limit:
        resources["limits"] = {"memory": settings.builds_memory_limit}
    return {
        "envFrom": sources,
        "resources": resources,
        "securityContext": CONTAINER_SECURITY,
        "terminationMessagePath": TERMINATION_LOG,
        # A step that gives no reason has its last lines for one.
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }


def _environment(variables: dict[str, str]) -> list[dict[str, str]]:
    everywhere = {
        step_variables.BUILD: f"{DOCUMENT_FOLDER}/{DOCUMENT_FILE}",
        "HOME": "/tmp",  # noqa: S108 - a volume of the pod's own
        "PYTHONUNBUFFERED": "1",
    }
    return [{"name": name, "value": value} for name, value in {**everywhere, **variables}.items()]


def _mounts() -> list[dict[str, Any]]:
    return [
        {"name": "builds", "mountPath": BUILDS_FOLDER},
        {"name": "document", "mountPath": DOCUMENT_FOLDER, "readOnly": True},
        {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - a volume of the pod's own
    ]


def _volumes(build: IndexBuild, settings: ControllerSettings) -> list[dict[str, Any]]:
    volumes: list[dict[str, Any]] = [
        {"name": "builds", **_claimed(settings.build_volume_claim)},
        {"name": "document", "configMap": {"name": document_name(build.name)}},
        {"name": "tmp", "emptyDir": {}},
    ]
    if settings.originals_claim:
        volumes.append({"name": "originals", **_claimed(settings.originals_claim)})
    return volumes


def _claimed(claim: str) -> dict[str, Any]:
    return {"persistentVolumeClaim": {"claimName": claim}} if claim else {"emptyDir": {}}


def _labels(owner: KubeObject) -> dict[str, str]:
    metadata = owner["metadata"]
    return {
        "app.kubernetes.io/name": "index-build",
        "app.kubernetes.io/part-of": "shashin",
        "app.kubernetes.io/managed-by": MANAGER,
        BUILD_LABEL: metadata["name"],
        UID_LABEL: metadata["uid"],
    }


def _shortened(name: str, ending: str) -> str:
    whole = f"{name}{ending}"
    if len(whole) <= _MAX_NAME:
        return whole
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{name[: _MAX_NAME - len(ending) - 9].rstrip('-')}-{digest}{ending}"
