"""The builds of a namespace of Kubernetes, which the controller runs."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from shashin.builds.document import IndexBuild, check_build_name
from shashin.builds.records import RecordedBuild
from shashin.builds.resource import (
    CANCEL_ANNOTATION,
    FORM,
    RETRY_ANNOTATION,
    build_of,
    object_of,
    status_of,
)
from shashin.builds.resource_status import StepResult
from shashin.builds.status import BuildStatus, Phase, StepStatus
from shashin.builds.step_reports import Progress
from shashin.documents.parts import NAME_PATTERN
from shashin.errors import (
    BuildNotFound,
    BuildRunning,
    KubernetesConflict,
    KubernetesNotFound,
    ShashinError,
    UserError,
)
from shashin.kube.client import KubeClient
from shashin.kube.resource import OWN_NAMESPACE, KubeObject
from shashin.kube.resources import INDEX_BUILDS

_URI = re.compile(rf"kubernetes:///(?P<namespace>({NAME_PATTERN})?)")


def namespace_of(uri: str) -> str:
    """Return the namespace that a URI names; empty for the client's own.

    Raises:
        UserError: if it is not the URI of a namespace.
    """
    match = _URI.fullmatch(uri)
    if match is None:
        raise UserError(
            f"{uri!r} is not the URI of a namespace: expected {FORM}, or kubernetes:/// for the pod's own"
        )
    return match["namespace"]


@asynccontextmanager
async def opened_kubernetes_builds(uri: str) -> AsyncIterator[KubernetesBuilds]:
    """Open the builds at a URI, with the credentials of the pod, or of the kubeconfig.

    Raises:
        UserError: if it is not the URI of a namespace.
    """
    namespace = namespace_of(uri)
    client = KubeClient.from_environment()
    try:
        yield KubernetesBuilds(client, namespace)
    finally:
        await client.close()


class KubernetesBuilds:
    """The builds of a namespace. Every method raises the errors of ``KubernetesError``."""

    under_way: tuple[Phase, ...] = ("Pending", "Running")

    def __init__(self, client: KubeClient, namespace: str = OWN_NAMESPACE) -> None:
        self._client = client
        self._namespace = namespace

    async def read_all(self) -> tuple[Sequence[RecordedBuild], Mapping[str, ShashinError]]:
        """Return all builds, oldest first, and by its name why each other one cannot be read."""
        listed = await self._client.list(INDEX_BUILDS, namespace=self._namespace)
        found: list[RecordedBuild] = []
        unreadable: dict[str, ShashinError] = {}
        for one in listed.items:
            try:
                found.append(recorded_of(one))
            except UserError as error:
                unreadable[one["metadata"]["name"]] = error
        found.sort(key=lambda one: (one.status.created, one.build.name))
        return found, unreadable

    async def create(self, build: IndexBuild, repository: str, now: datetime) -> bool:
        """Create a build, which the controller runs with its own repository."""
        del repository, now
        try:
            await self._client.create(INDEX_BUILDS, object_of(build), namespace=self._namespace)
        except KubernetesConflict:
            return False
        return True

    async def read(self, name: str) -> RecordedBuild:
        """Return a build.

        Raises:
            BuildNotFound: if there is none of this name.
            UserError: if it is not valid.
        """
        return recorded_of(await self._get(name))

    async def retry(self, name: str, now: datetime) -> None:
        """Ask for another attempt at a build that has failed or was cancelled.

        Raises:
            BuildNotFound: if there is none of this name.
            BuildRunning: if it has not ended.
            UserError: if it has succeeded.
        """
        phase = status_of(await self._get(name)).phase
        if phase in {"Pending", "Running"}:
            raise BuildRunning(f"build {name} is {phase.lower()}: it runs without a retry")
        if phase == "Succeeded":
            raise UserError(f"build {name} has succeeded: there is nothing to retry")
        value = f"{now:%Y-%m-%dT%H:%M:%S.%fZ}"
        await self._annotate(name, {RETRY_ANNOTATION: value, CANCEL_ANNOTATION: None})

    async def cancel(self, name: str) -> None:
        """Ask the controller to end a build.

        Raises:
            BuildNotFound: if there is none of this name.
        """
        await self._annotate(name, {CANCEL_ANNOTATION: "true"})

    async def remove(self, name: str) -> None:
        """Delete a build with its Jobs and pods; what it published stays.

        Raises:
            BuildNotFound: if there is none of this name.
        """
        check_build_name(name)
        try:
            await self._client.delete(INDEX_BUILDS, name, namespace=self._namespace)
        except KubernetesNotFound as error:
            raise await self._not_found(name) from error

    async def _get(self, name: str) -> KubeObject:
        check_build_name(name)
        try:
            return await self._client.get(INDEX_BUILDS, name, namespace=self._namespace)
        except KubernetesNotFound as error:
            raise await self._not_found(name) from error

    async def _annotate(self, name: str, values: Mapping[str, str | None]) -> None:
        check_build_name(name)
        patch: dict[str, Any] = {"metadata": {"annotations": dict(values)}}
        try:
            await self._client.merge_patch(INDEX_BUILDS, name, patch, namespace=self._namespace)
        except KubernetesNotFound as error:
            raise await self._not_found(name) from error

    async def _not_found(self, name: str) -> BuildNotFound:
        where = self._namespace or await self._client.namespace()
        return BuildNotFound(
            f"no build is named {name!r} in namespace {where!r}, or its IndexBuilds are not defined: "
            "`kubectl get indexbuilds` lists all builds"
        )


def recorded_of(found: KubeObject) -> RecordedBuild:
    """Return a build and its status as a record in a folder would have them.

    Raises:
        UserError: if it is not valid.
    """
    build = build_of(found)
    status = status_of(found)
    steps = status.steps or tuple(StepResult(name=step.name) for step in build.spec.pipeline)
    created = datetime.fromisoformat(found["metadata"]["creationTimestamp"]).astimezone(UTC)
    return RecordedBuild(
        build,
        BuildStatus(
            phase=status.phase,
            reason=status.reason,
            attempts=status.attempts,
            created=created,
            started=status.start_time,
            finished=status.completion_time,
            repository="",
            command_folder="",
            steps=tuple(map(_step, steps)),
        ),
    )


def _step(result: StepResult) -> StepStatus:
    seconds = None
    if result.start_time is not None and result.completion_time is not None:
        seconds = max((result.completion_time - result.start_time).total_seconds(), 0.0)
    return StepStatus(
        result.name,
        result.fingerprint,
        phase=result.phase,
        attempt=result.attempt,
        started=result.start_time,
        finished=result.completion_time,
        seconds=seconds,
        exit_code=result.exit_code,
        reason=result.reason,
        progress=None
        if result.done is None
        else Progress(result.done, result.total, result.unit or "rows"),
    )
