"""Runs IndexBuilds: a Job for each attempt, and says how far they are.

The Job of an attempt is made before the status says so, under a name that follows from the build and the
number of the attempt. So whenever the controller dies, the next one finds either no Job, or one that it
adopts; no attempt is made twice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from services.controller.attempt_pods import finished, runs
from services.controller.build_job import (
    BUILD_LABEL,
    OF_BUILDS,
    UID_LABEL,
    build_document,
    build_folder,
    build_job,
    job_name,
    prepare_name,
)
from services.controller.build_queue import EndedBuild, QueuedBuild, expired, why_waiting
from services.controller.build_status import (
    CANCELLED,
    ENDED_BY_CONTROLLER,
    begun,
    invalid,
    limit_of,
    observed,
    over,
    steps_to_run,
    waiting,
    word_of,
)
from services.controller.events import record_event
from services.controller.made import MANAGER
from services.controller.settings import ControllerSettings
from shashin.builds.document import IndexBuild
from shashin.builds.fingerprints import fingerprints
from shashin.builds.resource import (
    CANCEL_ANNOTATION,
    RETRY_ANNOTATION,
    annotation,
    build_of,
    status_of,
)
from shashin.builds.resource_status import IndexBuildStatus
from shashin.builds.status import ENDED
from shashin.errors import KubernetesConflict, KubernetesNotFound, UserError
from shashin.kube.client import KubeClient
from shashin.kube.reflector import Reflector
from shashin.kube.resource import Key, KubeObject, key_of, version_of
from shashin.kube.resources import CONFIG_MAPS, INDEX_BUILDS, JOBS, PODS
from shashin.metrics import controller as metrics
from shashin.runtime.logging import get_logger

log = get_logger(__name__)

REASON_OF_CANCEL = "someone cancelled it"

_NOT_ENDED = "the pods of an earlier attempt have not ended yet"
_LOOK_AGAIN_SECONDS = 5.0


@dataclass(frozen=True)
class BuildWorld:
    """What is known of IndexBuilds and of what was made for them."""

    builds: Reflector
    jobs: Reflector
    pods: Reflector

    @property
    def made(self) -> Sequence[Reflector]:
        """The reflectors of what was made."""
        return (self.jobs, self.pods)


class BuildReconciler:
    """The reconciler of IndexBuilds. Only one call at a time may run, of one controller."""

    name = "build"

    def __init__(self, client: KubeClient, world: BuildWorld, settings: ControllerSettings) -> None:
        self._client = client
        self._world = world
        self._settings = settings
        self._statuses: dict[Key, tuple[str, IndexBuildStatus]] = {}

    async def reconcile(self, key: Key) -> float | None:
        """Begin an attempt if one is due, follow the one that runs, and tidy up after those that ended."""
        self._measure()
        owner = self._world.builds.objects.get(key)
        if owner is None or _goes(owner):
            # What was made for it goes with it, by its owner references.
            self._statuses.pop(key, None)
            return None
        before = self._status(owner)
        if before.phase == "Running":
            return await self._follow(owner, before)
        if _is_to_run(owner, before):
            return await self._begin(owner, before)
        if before.phase not in ENDED:
            status = over(
                before, "Cancelled", CANCELLED, REASON_OF_CANCEL, self._client.clock.utc()
            )
            await self._write(owner, before, status)
            return None
        await self._end_job(owner, before)
        await self._delete_expired(key)
        return None

    # --- a build that is to run -----------------------------------------------------------------

    async def _begin(self, owner: KubeObject, before: IndexBuildStatus) -> float | None:
        generation = int(owner["metadata"].get("generation", 0))
        retry = annotation(owner, RETRY_ANNOTATION)
        attempt = before.attempts + 1
        try:
            build = build_of(owner, now=self._client.clock.utc() if attempt == 1 else None)
            _require_images(build)
        except UserError as error:
            status = invalid(
                before,
                error.message,
                generation=generation,
                retry=retry,
                now=self._client.clock.utc(),
            )
            await self._write(owner, before, status)
            return None
        made = fingerprints(build, self._settings.repository)
        job = await self._job(owner, attempt)
        if job is None:
            why = await self._why_waiting(owner)
            if why:
                status = waiting(
                    before, why, generation=generation, retry=retry, now=self._client.clock.utc()
                )
                await self._write(owner, before, status)
                return _LOOK_AGAIN_SECONDS
            run = steps_to_run(before, made, kept=bool(self._settings.build_volume_claim))
            await self._create(build, owner, attempt, run)
        else:
            # Of a controller that died before it could say so.
            run = tuple(name for name in _containers(job) if name != prepare_name(build))
        status = begun(
            before.model_copy(update={"retry": retry}),
            made,
            run,
            attempt=attempt,
            generation=generation,
            now=self._client.clock.utc(),
        )
        await self._write(owner, before, status)
        return None

    async def _create(
        self, build: IndexBuild, owner: KubeObject, attempt: int, run: Sequence[str]
    ) -> None:
        namespace = owner["metadata"]["namespace"]
        await self._client.apply(
            CONFIG_MAPS, build_document(build, owner), manager=MANAGER, namespace=namespace
        )
        job = build_job(build, owner, attempt, run, self._settings, forgotten=self._forgotten())
        # A conflict is the Job of an earlier build of this name, which is being deleted.
        await self._client.create(JOBS, job, namespace=namespace)
        log.info("attempt begun", build=build.name, attempt=attempt, steps=list(run))

    async def _why_waiting(self, owner: KubeObject) -> str:
        """Return why a build may not begin now; empty if it may."""
        namespace, name = key_of(owner)
        if why := self._why_not(owner, self._world.jobs.objects.values()):
            return why
        # Caches may lag behind, and a Job too many would do its work twice.
        pods = await self._client.list(
            PODS, namespace=namespace, label_selector=f"{BUILD_LABEL}={name}"
        )
        if any(map(runs, pods.items)):
            return _NOT_ENDED
        jobs = await self._client.list(JOBS, namespace=namespace, label_selector=OF_BUILDS)
        return self._why_not(owner, jobs.items)

    def _why_not(self, owner: KubeObject, jobs: Iterable[KubeObject]) -> str:
        namespace, name = key_of(owner)
        names = {
            _build_of_job(job)
            for job in jobs
            if finished(job) is None and job["metadata"]["namespace"] == namespace
        }
        if name in names:
            return _NOT_ENDED
        known = self._world.builds.objects
        running = [
            _queued(known[namespace, one])
            if (namespace, one) in known
            else QueuedBuild((namespace, one), "")
            for one in names
        ]
        queue = [
            _queued(other)
            for other in known.values()
            if _is_to_run(other, self._status(other)) and key_of(other)[1] not in names
        ]
        return why_waiting(key_of(owner), queue, running, limit=self._settings.max_running_builds)

    def _forgotten(self) -> list[str]:
        """Return the folders of builds whose files nobody needs: what they made is published."""
        if not self._settings.build_volume_claim:
            return []
        ended = [
            owner
            for owner in self._world.builds.objects.values()
            if self._status(owner).phase == "Succeeded"
        ]
        ended.sort(key=lambda owner: str(self._status(owner).completion_time), reverse=True)
        return [build_folder(owner) for owner in ended]

    # --- a build that runs ----------------------------------------------------------------------

    async def _follow(self, owner: KubeObject, before: IndexBuildStatus) -> float | None:
        namespace, name = key_of(owner)
        uid = owner["metadata"]["uid"]
        if annotation(owner, CANCEL_ANNOTATION) == "true":
            status = over(
                before, "Cancelled", CANCELLED, REASON_OF_CANCEL, self._client.clock.utc()
            )
            await self._write(owner, before, status)
            await self._end_job(owner, status)
            return None
        job = self._world.jobs.objects.get((namespace, job_name(name, before.attempts)))
        pods = [pod for pod in self._world.pods.objects.values() if _uid_of(pod) == uid]
        status = observed(before, job, pods, self._client.clock.utc())
        if status.phase != "Running":
            # Job and pods are followed apart from each other, so one may be behind.
            job = await self._job(owner, before.attempts)
            listed = await self._client.list(
                PODS, namespace=namespace, label_selector=f"{UID_LABEL}={uid}"
            )
            pods = list(listed.items)
            status = observed(before, job, pods, self._client.clock.utc())
        left: float | None = None
        if status.phase == "Running":
            limit = limit_of(
                status,
                job,
                pods,
                timeouts=_timeouts(owner),
                start_seconds=self._settings.build_start_seconds,
            )
            if limit is not None:
                left = (limit.at - self._client.clock.utc()).total_seconds()
                if left <= 0:
                    status = over(
                        status, "Failed", limit.word, limit.reason, self._client.clock.utc()
                    )
        await self._write(owner, before, status)
        if status.phase in ENDED:
            await self._end_job(owner, status)
            return None
        return left if left is None else max(left, 0.1)

    # --- a build that has ended -----------------------------------------------------------------

    async def _end_job(self, owner: KubeObject, status: IndexBuildStatus) -> None:
        """Delete the Job of an attempt that was ended by the controller, with its pods."""
        namespace, name = key_of(owner)
        job = self._world.jobs.objects.get((namespace, job_name(name, status.attempts)))
        if job is None or finished(job) is not None or not _is_owned(job, owner) or _goes(job):
            return
        if word_of(status) not in ENDED_BY_CONTROLLER:
            return  # its pod has ended, so it is about to be finished
        try:
            await self._client.delete(
                JOBS, job["metadata"]["name"], namespace=namespace, uid=job["metadata"]["uid"]
            )
        except KubernetesNotFound:
            return
        log.info("job deleted", build=name, attempt=status.attempts)

    async def _delete_expired(self, key: Key) -> None:
        """Delete a build that has ended if enough newer ones of its tier and phase have."""
        ended = [
            EndedBuild(key_of(owner), owner["spec"]["tier"], status.phase, status.completion_time)
            for owner in self._world.builds.objects.values()
            if (status := self._status(owner)).phase in ENDED and not _goes(owner)
        ]
        if key not in expired(ended, history=self._settings.build_history):
            return
        uid = self._world.builds.objects[key]["metadata"]["uid"]
        try:
            await self._client.delete(INDEX_BUILDS, key[1], namespace=key[0], uid=uid)
        except KubernetesNotFound:
            return
        log.info("old build deleted", build=key[1])

    # --- the API --------------------------------------------------------------------------------

    async def _job(self, owner: KubeObject, attempt: int) -> KubeObject | None:
        """Return the Job of an attempt as it is now, if it is this build's."""
        namespace, name = key_of(owner)
        try:
            job = await self._client.get(JOBS, job_name(name, attempt), namespace=namespace)
        except KubernetesNotFound:
            return None
        if not _is_owned(job, owner):
            raise KubernetesConflict(
                f"the Job {job_name(name, attempt)} is not of this build {name!r}: it was made for an "
                "earlier one of its name, and is being deleted; otherwise delete it"
            )
        return job

    async def _write(
        self, owner: KubeObject, before: IndexBuildStatus, status: IndexBuildStatus
    ) -> None:
        if status == before:
            return
        namespace, name = key_of(owner)
        await self._client.merge_patch(
            INDEX_BUILDS,
            name,
            {
                # Of the build that was looked at, not of one that came since under its name.
                "metadata": {"resourceVersion": owner["metadata"]["resourceVersion"]},
                "status": status.model_dump(mode="json", by_alias=True),
            },
            namespace=namespace,
            subresource="status",
        )
        await self._record(owner, before, status)

    async def _record(
        self, owner: KubeObject, before: IndexBuildStatus, status: IndexBuildStatus
    ) -> None:
        """Tell people what has happened."""
        if status.attempts != before.attempts:
            kept = [step.name for step in status.steps if step.phase == "Succeeded"]
            text = f"attempt {status.attempts} begins with {status.step}"
            text += f"; kept {', '.join(kept)}" if kept else ""
            await record_event(
                self._client, owner, "Begun" if status.attempts == 1 else "Retried", text
            )
        if status.phase == before.phase or status.phase not in ENDED:
            return
        word = word_of(status)
        metrics.BUILD_ATTEMPTS.labels(owner["spec"]["tier"], word).inc()
        text = f"attempt {status.attempts}: {status.phase.lower()}"
        text += f" at {status.step}" if status.step else ""
        text += f": {status.reason}" if status.reason else ""
        kind: Literal["Normal", "Warning"] = "Warning" if status.phase == "Failed" else "Normal"
        await record_event(self._client, owner, word, text, kind=kind)
        log.info("build ended", build=key_of(owner)[1], phase=status.phase, reason=status.reason)

    def _status(self, owner: KubeObject) -> IndexBuildStatus:
        key, version = key_of(owner), f"{owner['metadata']['uid']} {version_of(owner)}"
        known = self._statuses.get(key)
        if known is None or known[0] != version:
            known = self._statuses[key] = (version, status_of(owner))
        return known[1]

    def _measure(self) -> None:
        counted = Counter(
            (str(owner["spec"].get("tier")), self._status(owner).phase)
            for owner in self._world.builds.objects.values()
        )
        metrics.BUILDS.clear()
        for (tier, phase), number in counted.items():
            metrics.BUILDS.labels(tier, phase).set(number)


def _is_to_run(owner: KubeObject, status: IndexBuildStatus) -> bool:
    """Return whether a build waits for an attempt."""
    if _goes(owner) or annotation(owner, CANCEL_ANNOTATION) == "true":
        return False
    if status.phase in {"Failed", "Cancelled"}:
        return annotation(owner, RETRY_ANNOTATION) not in {"", status.retry}
    return status.phase == "Pending"


def _require_images(build: IndexBuild) -> None:
    """Check that every step of the user's has an image.

    Raises:
        UserError: if one has none.
    """
    lacking = [s.name for s in build.spec.pipeline if not s.built_in and s.image is None]
    if lacking:
        raise UserError(
            f"IndexBuild {build.name}: spec.pipeline: {', '.join(lacking)} without an image: on "
            "Kubernetes, a step with a command needs one"
        )


def _timeouts(owner: KubeObject) -> dict[str, int]:
    # Not by the document: it may have been changed since the attempt began.
    pipeline = owner["spec"].get("pipeline") or ()
    return {step["name"]: step["timeoutSeconds"] for step in pipeline if step.get("timeoutSeconds")}


def _queued(owner: KubeObject) -> QueuedBuild:
    shards = (owner["spec"].get("source") or {}).get("shards") or ()
    created = str(owner["metadata"].get("creationTimestamp", ""))
    return QueuedBuild(key_of(owner), created, frozenset(shards))


def _containers(job: KubeObject) -> list[str]:
    pod = job["spec"]["template"]["spec"]
    return [one["name"] for one in (*pod.get("initContainers", ()), *pod["containers"])]


def _build_of_job(job: KubeObject) -> str:
    name: str = job["metadata"]["labels"][BUILD_LABEL]
    return name


def _uid_of(made: KubeObject) -> str:
    uid: str = (made["metadata"].get("labels") or {}).get(UID_LABEL, "")
    return uid


def _is_owned(made: KubeObject, owner: KubeObject) -> bool:
    uid: str = owner["metadata"]["uid"]
    return _uid_of(made) == uid


def _goes(found: KubeObject) -> bool:
    return "deletionTimestamp" in found["metadata"]
