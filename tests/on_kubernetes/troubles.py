"""What goes wrong meanwhile: pods die, the API server is away, objects and builds are bad."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import numpy as np
from aiohttp import web

from shashin.errors import KubernetesError, ShashinError
from shashin.kube.resource import KubeObject
from shashin.kube.resources import INDEX_BUILDS, INDEX_SERVINGS, LEASES
from tests.on_kubernetes.cluster import run
from tests.on_kubernetes.installation import DIMENSIONS, MODEL, Installation
from tests.on_kubernetes.past_days import PastDay
from tests.support.waiting import until

OUTAGE_SECONDS = 30.0
_LONG = 240.0
_DAY = 86400


async def kill_each(on: Installation) -> list[str]:
    """Kill a router, an index server, the working controller and the image builder, one by one."""
    killed = []
    for name, selector in (
        ("router", "app.kubernetes.io/name=router"),
        ("index server", "shashin.dev/serving"),
        ("image builder", "app.kubernetes.io/name=image-builder"),
    ):
        pods = [pod for pod in await on.pods(selector) if is_ready(pod)]
        assert pods, f"no {name} is ready"
        killed.append(await on.kill(pods[0]))
        await until_as_many_are_ready(on, selector, len(pods))
    killed.append(await kill_working_controller(on))
    return killed


async def kill_working_controller(on: Installation) -> str:
    """Kill the controller that holds the lease, and wait until another one has it."""
    before = await lease_holder(on)
    (pod,) = [
        p
        for p in await on.pods("app.kubernetes.io/name=controller")
        if p["metadata"]["name"] == before
    ]
    name = await on.kill(pod)

    async def taken_over() -> bool:
        return await lease_holder(on) not in {"", before}

    await until(taken_over, "another controller works", limit_seconds=_LONG)
    return name


async def lease_holder(on: Installation) -> str:
    """Return the pod that works as controller; empty if there is none."""
    lease = await on.client.get(LEASES, "shashin-controller", namespace=on.namespace)
    holder: str = lease["spec"].get("holderIdentity") or ""
    return holder.rpartition("_")[0]


async def until_as_many_are_ready(on: Installation, selector: str, number: int) -> None:
    """Wait until so many pods are ready."""

    async def ready() -> bool:
        return sum(map(is_ready, await on.pods(selector))) >= number

    await until(ready, f"{number} pods with {selector} are ready", limit_seconds=_LONG)


def is_ready(pod: KubeObject) -> bool:
    """Return whether a pod is ready."""
    return any(
        one["type"] == "Ready" and one["status"] == "True"
        for one in pod.get("status", {}).get("conditions", ())
    )


async def stop_api_server(on: Installation) -> str:
    """Stop the API server for a while; returns what came of it."""
    if not on.cluster.stop_api_server:
        return "left out: no command stops the API server of this cluster"
    await run("sh", "-c", on.cluster.stop_api_server)
    try:
        await asyncio.sleep(OUTAGE_SECONDS)
    finally:
        await run("sh", "-c", on.cluster.start_api_server)

    async def answers() -> bool:
        try:
            await asyncio.wait_for(on.servings(), 5.0)
        except (ShashinError, TimeoutError):
            return False
        return True

    await until(answers, "the API server answers again", limit_seconds=_LONG)
    return f"{OUTAGE_SECONDS:.0f} s without an answer"


# --- bad objects --------------------------------------------------------------------------------


async def bad_servings(on: Installation) -> None:
    """Objects that the API server refuses, and one whose image cannot be pulled."""
    good = serving("bad", f"{on.cluster.registry}/{on.namespace}/no-such-image@sha256:{'0' * 64}")
    for wrong in (
        {"image": f"{on.cluster.registry}/shashin/index-server:test"},
        {"tier": "weekly"},
        {"model": "another"},
        {"replicas": -1},
    ):
        try:
            made = {**good, "spec": {**good["spec"], **wrong}}
            await on.client.apply(INDEX_SERVINGS, made, manager="test", namespace=on.namespace)
        except KubernetesError:
            continue
        raise AssertionError(f"the API server accepted {wrong}")
    await on.client.apply(INDEX_SERVINGS, good, manager="test", namespace=on.namespace)

    async def named() -> bool:
        found = await on.client.get(INDEX_SERVINGS, "bad", namespace=on.namespace)
        return ready_reason(found) == "ImagePullFailed"

    await until(named, "the image that cannot be pulled is named", limit_seconds=_LONG)
    await on.client.delete(INDEX_SERVINGS, "bad", namespace=on.namespace)


def serving(name: str, image: str) -> dict[str, Any]:
    """Return a small IndexServing."""
    shard = {
        "id": f"{MODEL}.hourly.nothing",
        "rows": 1,
        "ranges": [{"partition": 0, "fromOffset": 0, "toOffset": 1}],
    }
    return {
        "apiVersion": "shashin.dev/v1alpha1",
        "kind": "IndexServing",
        "metadata": {"name": name},
        "spec": {
            "model": MODEL,
            "dimensions": DIMENSIONS,
            "tier": "hourly",
            "image": image,
            "shards": [shard],
            "replicas": 1,
        },
    }


def ready_reason(found: KubeObject) -> str:
    """Return the reason of an IndexServing's condition Ready."""
    for one in found.get("status", {}).get("conditions", ()):
        if one["type"] == "Ready":
            return str(one["reason"])
    return ""


# --- builds -------------------------------------------------------------------------------------


async def build_that_fails_once(on: Installation, day: PastDay, image: str) -> None:
    """Build a day with a step of the user's own, the third, which fails until something is repaired."""
    repaired = False
    host = on.cluster.host

    async def answer(_request: web.Request) -> web.Response:
        return web.Response(status=200 if repaired else 503)

    app = web.Application()
    app.router.add_get("/", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, host, 0)
    await site.start()
    port = runner.addresses[0][1]
    try:
        name = "checked-day"
        check = f"import urllib.request as r; r.urlopen('http://{host}:{port}/')"
        await on.client.create(
            INDEX_BUILDS, checked_build(name, day, image, check), namespace=on.namespace
        )
        failed = await until_phase(on, name, "Failed")
        assert failed["status"]["step"] == "check", failed["status"]
        repaired = True
        retry = {"metadata": {"annotations": {"shashin.dev/retry": str(time.time())}}}
        await on.client.merge_patch(INDEX_BUILDS, name, retry, namespace=on.namespace)
        done = await until_phase(on, name, "Succeeded")
        assert done["status"]["attempts"] == 2, done["status"]
    finally:
        await runner.cleanup()


def checked_build(name: str, day: PastDay, image: str, check: str) -> dict[str, Any]:
    """Return an IndexBuild of a day with a step that runs a line of Python."""
    times = [datetime.fromtimestamp(at, UTC) for at in (day.start, day.start + _DAY)]
    start, end = (f"{at:%Y-%m-%dT%H:%M:%SZ}" for at in times)
    steps: list[dict[str, Any]] = [
        {"name": name} for name in ("select", "fetch", "embed", "build", "publish")
    ]
    steps.insert(2, {"name": "check", "image": image, "command": ["python", "-c", check]})
    return {
        "apiVersion": "shashin.dev/v1alpha1",
        "kind": "IndexBuild",
        "metadata": {"name": name},
        "spec": {
            "model": MODEL,
            "dimensions": DIMENSIONS,
            "tier": "daily",
            "window": {"start": start, "end": end},
            "source": {"shards": list(day.shard_ids)},
            "pipeline": steps,
        },
    }


async def planned_builds(on: Installation, tier: str) -> list[str]:
    """Run the command of a CronJob now; returns the names of the builds that it planned, all done.

    The CronJob's own time may have come meanwhile: then it has planned them already.
    """
    job = f"plan-{tier}-now"
    await on.cluster.kubectl(
        *("create", "job", job, f"--from=cronjob/plan-{tier}", "-n", on.namespace)
    )
    await on.cluster.kubectl(
        *("wait", "--for=condition=complete", f"job/{job}", "-n", on.namespace),
        "--timeout=120s",
    )
    names = [one["metadata"]["name"] for one in await on.builds()]
    made = sorted(name for name in names if name.startswith(f"{MODEL}-{tier}-"))
    for name in made:
        await until_phase(on, name, "Succeeded")
    return made


async def until_phase(on: Installation, name: str, phase: str) -> KubeObject:
    """Wait for the phase of a build; returns it."""
    found: KubeObject = {}

    async def holds() -> bool:
        nonlocal found
        found = await on.client.get(INDEX_BUILDS, name, namespace=on.namespace)
        return bool(found.get("status", {}).get("phase") == phase)

    try:
        await until(holds, f"build {name} is {phase}", limit_seconds=_LONG)
    except AssertionError as error:
        raise AssertionError(f"{error}: {found.get('status')}") from None
    return found


def sample(day: PastDay, number: int) -> Mapping[str, np.ndarray]:
    """Return some listings of a day."""
    return dict(sorted(day.vectors.items())[:number])
