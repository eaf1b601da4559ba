"""IndexBuilds on a real cluster: the controller as a process, with real pods."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from services.controller.attempt_pods import finished
from shashin.builds.document import BUILT_IN_STEPS
from shashin.builds.kubernetes import KubernetesBuilds
from shashin.builds.planning import PlannedBuilds, plan_builds
from shashin.builds.policy import Policy
from shashin.errors import KubernetesNotFound
from shashin.kube.client import KubeClient
from shashin.kube.resource import KubeObject
from shashin.kube.resources import EVENTS, INDEX_BUILDS, JOBS, PODS
from shashin.objectstore.gcs import EMULATOR_VARIABLE
from shashin.objectstore.open import opened_object_store
from shashin.repository.repository import ModelRepository
from tests.support.cluster_builds import (
    DAY,
    ClusterBuilds,
    cluster_builds,
    made_builds_image,
    made_users_image,
)
from tests.support.definitions import apply_definitions
from tests.support.made_shards import MODEL
from tests.support.running_service import RunningService
from tests.support.shashin_command import shashin
from tests.support.waiting import until_in_cluster

K8S = Path(__file__).parents[2] / "k8s"
LATER = DAY + timedelta(days=1, hours=1)


@pytest.fixture(scope="module")
def users_image(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An image of a user's own."""
    return made_users_image(tmp_path_factory.mktemp("users-image"))


@pytest.fixture(scope="module")
def builds_image(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The image of the built-in steps."""
    # All workers of a run have their folders in this one.
    shared = tmp_path_factory.getbasetemp().parent
    return made_builds_image(shared / "builds-image.lock")


@pytest.fixture
async def builds(
    client: KubeClient,
    namespace: str,
    kubeconfig: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[ClusterBuilds]:
    await apply_definitions(client)
    # What the controller and steps are told does not come from the surroundings.
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    monkeypatch.setenv(EMULATOR_VARIABLE, "")
    async with cluster_builds(client, namespace, tmp_path) as builds:
        yield builds


class Controller:
    """The controller of a namespace."""

    def __init__(self, namespace: str, builds_image: str, folder: Path) -> None:
        self._namespace, self._image, self._folder = namespace, builds_image, folder
        self.service: RunningService | None = None

    async def start(self, *, clock_ahead_seconds: float = 0, **settings: Any) -> RunningService:
        """Start it, and wait until it is ready."""
        self.service = RunningService(
            "controller",
            "127.0.0.1:1",
            {
                "namespace": self._namespace,
                "builds_image": self._image,
                "builds_cpu": "50m",
                "builds_memory": "64Mi",
                **settings,
            },
            log=self._folder,
            clock_ahead_seconds=clock_ahead_seconds,
        )
        await self.service.start()
        await self.service.until_ready()
        return self.service


@pytest.fixture
async def controller(
    builds: ClusterBuilds, namespace: str, builds_image: str, tmp_path: Path
) -> AsyncIterator[Controller]:
    controller = Controller(namespace, builds_image, tmp_path / "logs")
    (tmp_path / "logs").mkdir()
    yield controller
    if controller.service is not None:
        await controller.service.close()


def pipeline(*users: dict[str, Any], after: str = "select") -> list[dict[str, Any]]:
    """Return a pipeline with steps of the user's own after a built-in one."""
    steps: list[dict[str, Any]] = []
    for name in BUILT_IN_STEPS:
        steps += [{"name": name}, *(users if name == after else ())]
    return steps


def step(image: str, script: str, **fields: Any) -> dict[str, Any]:
    return {"name": "check", "image": image, "command": ["python", "-c", script], **fields}


CHECK = """
import json, os, pathlib
build = json.load(open(os.environ["SHASHIN_BUILD"]))
out = pathlib.Path(os.environ["SHASHIN_STEP_OUT"])
assert build["spec"]["tier"] == "daily" and os.environ["SHASHIN_REPOSITORY"].startswith("gs://")
assert not list(out.iterdir()), "it is empty at the start"
assert pathlib.Path(os.environ["SHASHIN_BUILD_WORK"]).is_dir()
selected = sorted(path.name for path in (out.parent / "select").iterdir())
assert selected == sorted(build["spec"]["source"]["shards"]), selected
(out / "selected.txt").write_text("\\n".join(selected))
"""


async def test_a_build_with_a_step_of_the_users_publishes_its_shard(
    builds: ClusterBuilds, controller: Controller, users_image: str
) -> None:
    parents = await builds.seal(2)
    await controller.start()
    await builds.create(builds.build("demo", parents, pipeline=pipeline(step(users_image, CHECK))))
    status = await builds.until("demo", "Succeeded")
    (manifest,) = await builds.published()
    assert status.shards == (manifest.shard_id,)
    assert (manifest.rows, manifest.build, manifest.parents) == (18, "demo", tuple(parents))
    assert [(one.name, one.phase, one.exit_code) for one in status.steps] == [
        (name, "Succeeded", 0) for name in ("select", "check", "fetch", "embed", "build", "publish")
    ]
    assert all(one.start_time and one.completion_time for one in status.steps)
    rows = next(one for one in status.steps if one.name == "build")
    assert (rows.done, rows.unit) == (18, "rows")
    assert {one.type: one.status for one in status.conditions} == {
        "Failed": "False",
        "Progressing": "False",
        "Succeeded": "True",
    }
    reasons = await until_in_cluster(lambda: events_of(builds, "demo"), "events are there")
    assert {"Begun", "StepsSucceeded"} <= set(reasons)


async def events_of(builds: ClusterBuilds, name: str) -> list[str]:
    listed = await builds.client.list(EVENTS, namespace=builds.namespace)
    found = [e["reason"] for e in listed.items if e["involvedObject"]["name"] == name]
    return found if len(found) > 1 else []


FAILS_ONCE = """
import os, pathlib, sys
work = pathlib.Path(os.environ["SHASHIN_BUILD_WORK"])
made = pathlib.Path(os.environ["SHASHIN_STEP_OUT"]).parent
if not (work / "tried").exists():
    (work / "tried").touch()
    (made / "select" / "mark").touch()
    pathlib.Path(os.environ["SHASHIN_STEP_REASON"]).write_text("no licence for these photos")
    sys.exit(7)
assert (made / "select" / "mark").exists(), "what succeeded is kept"
"""


async def test_a_build_that_fails_in_its_third_step_is_run_again_from_there(
    builds: ClusterBuilds, controller: Controller, users_image: str
) -> None:
    await builds.claim("work")
    parents = await builds.seal(2)
    await controller.start(build_volume_claim="work", repository=builds.uri)
    await builds.create(
        builds.build(
            "demo", parents, pipeline=pipeline(step(users_image, FAILS_ONCE), after="fetch")
        )
    )
    failed = await builds.until("demo", "Failed")
    assert (failed.step, failed.reason) == ("check", "no licence for these photos")
    assert [(one.phase, one.exit_code) for one in failed.steps[:3]] == [
        ("Succeeded", 0),
        ("Succeeded", 0),
        ("Failed", 7),
    ]
    assert await builds.published() == []
    await builds.annotate("demo", retry="again")
    status = await builds.until("demo", "Succeeded", attempt=2)
    assert (status.attempts, status.retry) == (2, "again")
    assert [one.attempt for one in status.steps] == [1, 1, 2, 2, 2, 2]
    assert len(await builds.published()) == 1
    names = {job["metadata"]["name"] for job in await builds.jobs()}
    assert names == {"demo-1", "demo-2"}, "an annotation is followed once"


async def test_without_a_volume_a_retry_begins_with_the_first_step(
    builds: ClusterBuilds, controller: Controller, users_image: str, tmp_path: Path
) -> None:
    parents = await builds.seal(1)
    await controller.start()
    await builds.create(
        builds.build("demo", parents, pipeline=pipeline(step(users_image, "raise SystemExit(3)")))
    )
    failed = await builds.until("demo", "Failed")
    assert (failed.step, failed.reason) == ("check", "exit code 3")
    where = f"kubernetes:///{builds.namespace}"
    asked = await shashin("builds", "retry", "demo", "--builds", where, state=tmp_path / "state")
    assert "build demo will be run again" in asked.out
    again = await builds.until("demo", "Failed", attempt=2)
    assert [one.attempt for one in again.steps[:2]] == [2, 2]


async def test_a_step_that_takes_too_long_is_ended(
    builds: ClusterBuilds, controller: Controller, users_image: str
) -> None:
    parents = await builds.seal(1)
    await controller.start()
    endless = step(users_image, "import time; time.sleep(3600)", timeoutSeconds=2)
    await builds.create(builds.build("demo", parents, pipeline=pipeline(endless)))
    failed = await builds.until("demo", "Failed")
    assert failed.reason == "it took longer than its timeoutSeconds, 2"
    assert (failed.step, failed.steps[1].phase) == ("check", "Failed")
    await until_in_cluster(lambda: nothing_runs(builds), "no pod runs any more")


async def test_a_step_that_needs_too_much_memory_is_named_and_runs_with_more(
    builds: ClusterBuilds, controller: Controller, users_image: str
) -> None:
    parents = await builds.seal(1)
    service = await controller.start(builds_memory_limit="128Mi")
    hungry = step(users_image, "bytes(range(256)) * (1 << 20)")
    await builds.create(builds.build("demo", parents, pipeline=pipeline(hungry)))
    failed = await builds.until("demo", "Failed")
    assert failed.step == "check"
    assert failed.reason.startswith("OOMKilled: it used more memory than its limit")
    await service.close()
    await controller.start(builds_memory_limit="1Gi")
    await builds.annotate("demo", retry="1")
    await builds.until("demo", "Succeeded", attempt=2)


@pytest.mark.parametrize("ahead", [3600, -3600])
async def test_a_clock_that_is_wrong_ends_no_step_early_and_lets_none_run(
    builds: ClusterBuilds, controller: Controller, users_image: str, ahead: int
) -> None:
    parents = await builds.seal(1)
    service = await controller.start(clock_ahead_seconds=ahead)
    quick = step(users_image, "import time; time.sleep(2)", timeoutSeconds=600)
    endless = step(users_image, "import time; time.sleep(3600)", timeoutSeconds=2)
    steps = pipeline(quick, endless | {"name": "endless"})
    await builds.create(builds.build("demo", parents, pipeline=steps))
    failed = await builds.until("demo", "Failed")
    assert failed.reason == "it took longer than its timeoutSeconds, 2"
    assert [one.phase for one in failed.steps[:3]] == ["Succeeded", "Succeeded", "Failed"]
    way = "ahead of" if ahead > 0 else "behind"
    assert f"seconds {way} the API server" in await service.probe("healthz")
    assert f"shashin_kubernetes_clock_skew_seconds {'-' * (ahead < 0)}3" in await service.probe(
        "metrics"
    )


async def nothing_runs(builds: ClusterBuilds) -> bool:
    return not [
        pod
        for pod in await builds.pods()
        if pod["status"].get("phase") not in {"Succeeded", "Failed"}
    ]


async def test_a_build_is_cancelled_and_can_be_run_again(
    builds: ClusterBuilds, controller: Controller, users_image: str
) -> None:
    parents = await builds.seal(1)
    await controller.start()
    endless = step(users_image, "import time; time.sleep(3600)")
    await builds.create(builds.build("demo", parents, pipeline=pipeline(endless)))
    await until_in_cluster(lambda: runs_step(builds, "demo", "check"), "the endless step runs")
    await builds.annotate("demo", cancel="true")
    status = await builds.until("demo", "Cancelled")
    assert status.reason == "someone cancelled it"
    await until_in_cluster(lambda: nothing_runs(builds), "no pod runs any more")
    await builds.annotate("demo", cancel=None, retry="1")
    await builds.until("demo", "Running", attempt=2)


async def runs_step(builds: ClusterBuilds, name: str, step: str) -> bool:
    return any(
        one.name == step and one.phase == "Running" for one in (await builds.status(name)).steps
    )


async def test_a_pod_that_is_deleted_fails_the_step_that_ran(
    builds: ClusterBuilds, controller: Controller, users_image: str
) -> None:
    parents = await builds.seal(1)
    await controller.start()
    endless = step(users_image, "import time; time.sleep(3600)")
    await builds.create(builds.build("demo", parents, pipeline=pipeline(endless)))
    await until_in_cluster(lambda: runs_step(builds, "demo", "check"), "the endless step runs")
    (pod,) = await builds.pods()
    await builds.client.delete(PODS, pod["metadata"]["name"], namespace=builds.namespace)
    status = await builds.until("demo", "Failed")
    assert status.step == "check"
    assert status.reason
    assert status.attempts == 1


async def test_an_image_that_does_not_exist_is_named_and_given_up_in_time(
    builds: ClusterBuilds, controller: Controller, users_image: str
) -> None:
    parents = await builds.seal(1)
    await controller.start(build_start_seconds=90)
    missing = step(users_image.rpartition(":")[0] + ":missing", "pass")
    await builds.create(builds.build("demo", parents, pipeline=pipeline(missing)))

    async def says_why() -> bool:
        status = await builds.status("demo")
        return "ImagePull" in status.reason

    await until_in_cluster(says_why, "the status names the image")
    failed = await builds.until("demo", "Failed")
    assert failed.reason.startswith("it could not start within 90 seconds: ")
    assert "ImagePull" in failed.reason
    assert failed.step == "check"


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        (
            {"pipeline": pipeline({"name": "check", "command": ["true"]})},
            "check without an image: on Kubernetes, a step with a command needs one",
        ),
        (
            {"window": {"start": "2126-01-01T00:00:00Z", "end": "2126-01-02T00:00:00Z"}},
            "is in the future",
        ),
        (
            {"window": {"start": "2026-01-01T00:00:00.5Z", "end": "2026-01-02T00:00:00Z"}},
            "expected a full second",
        ),
    ],
)
async def test_what_the_api_server_takes_and_no_step_could_use_is_invalid(
    builds: ClusterBuilds, controller: Controller, spec: dict[str, Any], problem: str
) -> None:
    document = builds.build("demo", [f"{MODEL}.hourly.p0000.0-5"]).document()
    document["spec"] |= spec
    await builds.client.create(INDEX_BUILDS, document, namespace=builds.namespace)
    await controller.start()
    status = await builds.until("demo", "Failed")
    assert problem in status.reason
    assert {one.reason for one in status.conditions} == {"Invalid"}
    assert await builds.jobs() == []


async def test_a_model_that_the_repository_does_not_have_is_invalid(
    builds: ClusterBuilds, controller: Controller
) -> None:
    await builds.seal(1)
    other = builds.build("demo", ["other.hourly.p0000.0-5"], model="other")
    await builds.create(other)
    await controller.start()
    status = await builds.until("demo", "Failed")
    assert "has no shard of 'other'" in status.reason
    assert {one.reason for one in status.conditions} == {"Invalid"}


async def test_builds_wait_for_a_place_and_for_those_that_merge_the_same_shards(
    builds: ClusterBuilds, controller: Controller, users_image: str
) -> None:
    first, second, third = await builds.seal(3)
    endless = pipeline(step(users_image, "import time; time.sleep(3600)"))
    for name, parents in (("a", [first]), ("b", [first, second]), ("c", [third]), ("d", [second])):
        await builds.create(builds.build(name, parents, pipeline=endless))
    await controller.start(max_running_builds=2)
    await builds.until("a", "Running")
    await builds.until("c", "Running")

    async def reasons() -> bool:
        waiting = [await builds.status(name) for name in ("b", "d")]
        return all(one.phase == "Pending" and one.reason for one in waiting)

    await until_in_cluster(reasons, "the others say why they wait")
    assert (await builds.status("b")).reason == "a merges some of its shards"
    assert (await builds.status("d")).reason == "2 builds run or come first"
    assert len(await builds.jobs()) == 2
    await builds.annotate("a", cancel="true")
    await builds.until("b", "Running")


async def test_old_builds_are_deleted_and_take_their_jobs_along(
    builds: ClusterBuilds, controller: Controller, users_image: str
) -> None:
    parents = await builds.seal(1)
    fails = pipeline(step(users_image, "raise SystemExit(3)"))
    await controller.start(build_history=1)
    for name in ("one", "two"):
        await builds.create(builds.build(name, parents, pipeline=fails))
        await builds.until(name, "Failed")

    async def is_gone() -> bool:
        try:
            await builds.object("one")
        except KubernetesNotFound:
            return True
        return False

    await until_in_cluster(is_gone, "the older one is deleted")

    async def only_the_newer_job() -> bool:
        return {job["metadata"]["name"] for job in await builds.jobs()} == {"two-1"}

    await until_in_cluster(only_the_newer_job, "its Job is deleted")
    assert (await builds.status("two")).phase == "Failed"


async def test_a_controller_that_is_killed_anywhere_makes_no_attempt_twice(
    builds: ClusterBuilds, controller: Controller
) -> None:
    parents = await builds.seal(2)
    await builds.create(builds.build("demo", parents))
    for _ in range(6):
        service = await controller.start()
        await service.kill()
    await controller.start()
    status = await builds.until("demo", "Succeeded")
    assert status.attempts == 1
    assert [job["metadata"]["name"] for job in await builds.jobs()] == ["demo-1"]
    assert len(await builds.published()) == 1


async def plan(builds: ClusterBuilds) -> PlannedBuilds:
    async with opened_object_store(builds.uri) as store:
        return await plan_builds(
            ModelRepository(store),
            builds.uri,
            KubernetesBuilds(builds.client, builds.namespace),
            MODEL,
            LATER,
            Policy(),
        )


async def test_two_planners_at_once_create_each_build_once_and_it_runs(
    builds: ClusterBuilds, controller: Controller
) -> None:
    await builds.seal(3)
    both = await asyncio.gather(plan(builds), plan(builds))
    (created,) = [name for planned in both for name in planned.created]
    listed = await builds.client.list(INDEX_BUILDS, namespace=builds.namespace)
    assert [one["metadata"]["name"] for one in listed.items] == [created]
    assert (await plan(builds)).created == [], "what waits is not planned again"
    await controller.start()
    await builds.until(created, "Succeeded")
    (manifest,) = await builds.published()
    assert (manifest.rows, manifest.build) == (27, created)


async def test_the_command_plans_lists_and_shows_the_builds_of_a_namespace(
    builds: ClusterBuilds, tmp_path: Path
) -> None:
    await builds.seal(2)
    where = ("--builds", f"kubernetes:///{builds.namespace}")
    state = tmp_path / "state"
    plan = ("builds", "plan", "--repository", builds.uri, "--model-id", MODEL, *where)
    other = await shashin(*plan, "--tier", "monthly", state=state)
    assert "nothing more is due" in other.out
    planned = await shashin(*plan, "--tier", "daily", state=state)
    (name,) = [one["metadata"]["name"] for one in (await listed(builds))]
    assert f"created {name}" in planned.out
    assert name in (await shashin("builds", "ls", *where, state=state)).out
    shown = await shashin("builds", "show", name, *where, state=state)
    assert "Pending" in shown.out
    assert not state.exists(), "nothing is recorded here"
    await shashin("builds", "rm", name, "--yes", *where, state=state)
    assert await listed(builds) == []
    missing = await shashin("builds", "show", name, *where, state=state, ends_with=2)
    assert f"no build is named '{name}' in namespace '{builds.namespace}'" in missing.error


async def listed(builds: ClusterBuilds) -> list[Any]:
    return list((await builds.client.list(INDEX_BUILDS, namespace=builds.namespace)).items)


async def test_a_build_that_is_deleted_takes_everything_along(
    builds: ClusterBuilds, controller: Controller, users_image: str
) -> None:
    parents = await builds.seal(1)
    await controller.start()
    endless = step(users_image, "import time; time.sleep(3600)")
    await builds.create(builds.build("demo", parents, pipeline=pipeline(endless)))
    await until_in_cluster(lambda: runs_step(builds, "demo", "check"), "the endless step runs")
    await builds.client.delete(INDEX_BUILDS, "demo", namespace=builds.namespace)

    async def gone() -> bool:
        return not await builds.jobs() and not await builds.pods()

    await until_in_cluster(gone, "its Job and pods are gone")
    with pytest.raises(KubernetesNotFound):
        await builds.client.get(JOBS, "demo-1", namespace=builds.namespace)


# --- the manifests ------------------------------------------------------------------------------


def kubectl(*arguments: object, stdin: str = "") -> str:
    if shutil.which("kubectl") is None:
        pytest.skip("needs kubectl")
    ended = subprocess.run(
        ["kubectl", *map(str, arguments)], capture_output=True, text=True, check=False, input=stdin
    )
    assert not ended.returncode, ended.stderr
    return ended.stdout


def rights(namespace: str) -> list[KubeObject]:
    """Return the accounts, roles and CronJobs of the base, for a namespace."""
    kinds = {"ServiceAccount", "Role", "RoleBinding", "CronJob"}
    base = yaml.safe_load_all(kubectl("kustomize", K8S / "base"))
    found = [one for one in base if one["kind"] in kinds]
    for one in found:
        one["metadata"]["namespace"] = namespace
        for subject in one.get("subjects", ()):
            subject["namespace"] = namespace
        if one["kind"] == "CronJob":
            one["spec"]["suspend"] = True
    return found


def apply(objects: list[KubeObject], kubeconfig: Path) -> None:
    kubectl(
        *("--kubeconfig", kubeconfig, "apply", "--server-side", "--force-conflicts"),
        *("--validate=strict", "-f", "-"),
        stdin=yaml.safe_dump_all(objects),
    )


def kubeconfig_of(account: str, namespace: str, admins: Path, folder: Path) -> Path:
    """Return a kubeconfig with which a service account reaches the cluster."""
    token = kubectl("--kubeconfig", admins, "-n", namespace, "create", "token", account)
    config = yaml.safe_load(admins.read_text())
    for user in config["users"]:
        user["user"] = {"token": token.strip()}
    own = folder / f"{account}.yaml"
    own.write_text(yaml.safe_dump(config))
    return own


@pytest.mark.parametrize("tier", ["hourly", "daily", "monthly"])
async def test_a_cron_job_plans_its_tier_with_the_rights_that_it_has(
    builds: ClusterBuilds, builds_image: str, kubeconfig: Path, tier: str
) -> None:
    await builds.seal(2)
    manifests = rights(builds.namespace)
    apply(manifests, kubeconfig)
    (cron_job,) = [one for one in manifests if one["metadata"]["name"] == f"plan-{tier}"]
    template = cron_job["spec"]["jobTemplate"]
    pod = template["spec"]["template"]["spec"]
    pod["containers"][0]["image"] = builds_image
    pod["containers"][0]["resources"]["requests"] = {"cpu": "20m", "memory": "64Mi"}
    job = {"apiVersion": "batch/v1", "kind": "Job", **template, "metadata": {"name": "plan"}}
    await builds.client.create(JOBS, job, namespace=builds.namespace)

    async def is_over() -> Any:
        return finished(await builds.client.get(JOBS, "plan", namespace=builds.namespace))

    ended = await until_in_cluster(is_over, "the planner's Job is over")
    log = kubectl("--kubeconfig", kubeconfig, "-n", builds.namespace, "logs", "job/plan")
    assert ended["type"] == "Complete", log
    listed = await builds.client.list(INDEX_BUILDS, namespace=builds.namespace)
    # The day is over and has two shards; its month has no day yet.
    assert [one["spec"]["tier"] for one in listed.items] == (["daily"] if tier == "daily" else [])


async def test_the_controller_runs_a_build_with_the_rights_that_it_has(
    builds: ClusterBuilds,
    controller: Controller,
    kubeconfig: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    apply(rights(builds.namespace), kubeconfig)
    own = kubeconfig_of("controller", builds.namespace, kubeconfig, tmp_path)
    monkeypatch.setenv("KUBECONFIG", str(own))
    parents = await builds.seal(2)
    await builds.create(builds.build("demo", parents))
    await controller.start(build_history=1)
    await builds.until("demo", "Succeeded")
    assert len(await builds.published()) == 1
