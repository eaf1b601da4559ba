"""How long a sealed shard takes to be served on Kubernetes, and what rollouts cost the queries meanwhile.

Needs what ``make cluster-test`` needs (CONTRIBUTING.md).
"""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.figures import percentile
from bench.shards import sealed_shard
from shashin.errors import UserError
from shashin.kafka.producer import OutRecord, Producer
from shashin.kafka.topics import INDEXES_SEALED
from shashin.kube.resource import KubeObject
from shashin.model_space import ModelSpace
from shashin.objectstore.gcs import EMULATOR_VARIABLE
from shashin.objectstore.open import opened_object_store
from shashin.repository.repository import ModelRepository
from shashin.shards.kinds.registry import DEFAULT_BUILT_KIND
from shashin.terminal.console import echo_stderr
from shashin.v1 import events_pb2
from tests.on_kubernetes.cluster import Cluster
from tests.on_kubernetes.host import HostServices, host_services
from tests.on_kubernetes.images import pushed_images
from tests.on_kubernetes.installation import DIMENSIONS, MODEL, Installation, installation
from tests.on_kubernetes.past_days import embedded_record, vector_of
from tests.on_kubernetes.troubles import is_ready, ready_reason
from tests.support.waiting import until

SPACE = ModelSpace(MODEL, DIMENSIONS)
SHARDS, ROWS = 8, 100_000
ROLLOVERS = 24
RATE = 50.0
BUCKET_SECONDS = 15
_BEFORE_SECONDS = 30.0
_LONG = 600.0

STEPS = ("published and applied", "pod started", "pod ready")


async def rollouts(scratch: Path) -> dict[str, float]:
    """Time some shards from sealed to served; then roll over under queries."""
    try:
        cluster = Cluster.from_environment()
    except UserError as error:
        echo_stderr(f"rollouts are not measured: {error.message}")
        return {}
    images = await pushed_images(cluster.registry)
    sealed, over = scratch / "sealed", scratch / "over"
    sealed.mkdir()
    over.mkdir()
    async with _installed(cluster, sealed, images, "3600") as (on, host):
        figures = await _sealed_to_served(on, host, sealed)
    async with _installed(cluster, over, images, str(BUCKET_SECONDS)) as (on, host):
        return figures | await _rollovers(on, host)


@asynccontextmanager
async def _installed(
    cluster: Cluster, folder: Path, images: Mapping[str, str], bucket_seconds: str
) -> AsyncIterator[tuple[Installation, HostServices]]:
    async with host_services(cluster.host, folder, embedder=False) as host:
        os.environ[EMULATOR_VARIABLE] = host.gcs_url
        async with installation(cluster) as on:
            await on.apply(host, images, SHASHIN_BUCKET_SECONDS=bucket_seconds)
            await on.until_ready()
            yield on, host


# --- from sealed to served ----------------------------------------------------------------------


@dataclass(frozen=True)
class _Served:
    """When a shard had come how far, in seconds since it was sealed."""

    applied: float
    started: float
    ready: float
    everywhere: float

    @property
    def steps(self) -> tuple[float, float, float]:
        """How long each of ``STEPS`` took."""
        return self.applied, self.started - self.applied, self.ready - self.started


async def _sealed_to_served(on: Installation, host: HostServices, folder: Path) -> dict[str, float]:
    found = []
    async with (
        Producer(host.kafka, client_id="bench") as producer,
        opened_object_store(host.repository) as store,
    ):
        repository = ModelRepository(store)
        for number in range(SHARDS):
            path = folder / str(number)
            manifest = await asyncio.to_thread(
                sealed_shard, path, number, DEFAULT_BUILT_KIND, ROWS, SPACE
            )
            await repository.commit_shard(manifest, path)
            event = events_pb2.SealedShard(
                shard_id=manifest.shard_id,
                tier=manifest.tier,
                model_id=manifest.model_id,
                manifest_key=manifest.key,
            )
            record = OutRecord(
                INDEXES_SEALED, manifest.shard_id.encode(), event.SerializeToString()
            )
            sealed = time.monotonic()
            await producer.send_all([record])
            found.append(await _served(on, manifest.shard_id, sealed))
            echo_stderr(f"  shard {number + 1} of {SHARDS}: {found[-1]}")
    ready = [one.ready for one in found]
    return {
        "sealed to served on Kubernetes p50": percentile(ready, 0.5),
        "sealed to served on Kubernetes p99": percentile(ready, 0.99),
        "sealed to served by every pod p50": percentile([one.everywhere for one in found], 0.5),
        **{
            f"of it, {step}": statistics.median(one.steps[number] for one in found)
            for number, step in enumerate(STEPS)
        },
    }


async def _served(on: Installation, shard_id: str, sealed: float) -> _Served:
    """Wait until every pod serves a shard."""

    async def serving() -> KubeObject | None:
        for one in await on.servings():
            if shard_id in [shard["id"] for shard in one["spec"]["shards"]]:
                return one
        return None

    applied: KubeObject = await until(serving, "it is applied", limit_seconds=_LONG)
    at_applied = time.monotonic()
    image, name = applied["spec"]["image"], applied["metadata"]["name"]

    async def new_pods() -> list[KubeObject]:
        pods = await on.pods(f"shashin.dev/serving={name}")
        return [pod for pod in pods if pod["spec"]["containers"][0]["image"] == image]

    async def started() -> bool:
        return any(
            one.get("state", {}).get("running")
            for pod in await new_pods()
            for one in pod.get("status", {}).get("containerStatuses", ())
        )

    async def ready() -> bool:
        return any(map(is_ready, await new_pods()))

    async def everywhere() -> bool:
        found = await serving()
        return found is not None and ready_reason(found) == "RolledOut"

    times = []
    for reached in (started, ready, everywhere):
        await until(reached, reached.__name__, limit_seconds=_LONG)
        times.append(time.monotonic() - sealed)
    return _Served(at_applied - sealed, *times)


# --- rollovers under queries --------------------------------------------------------------------


async def _rollovers(on: Installation, host: HostServices) -> dict[str, float]:
    stable = {f"stable-{n}": vector_of(f"stable-{n}", DIMENSIONS) for n in range(50)}
    async with Producer(host.kafka, client_id="bench") as producer:
        await producer.send_all(embedded_record(i, v, SPACE) for i, v in stable.items())
        async with on.router() as router:

            async def complete() -> bool:
                return (await router.status()).coverage.complete

            await until(complete, "coverage is complete", limit_seconds=_LONG)
        prober = await on.start_prober(stable, rate=RATE)
        await asyncio.sleep(_BEFORE_SECONDS)
        before = await prober.stop()
        prober = await on.start_prober(stable, rate=RATE)
        feeding = asyncio.ensure_future(_feed(producer))
        try:
            await _rolled_over(on)
        finally:
            feeding.cancel()
            await asyncio.gather(feeding, return_exceptions=True)
        during: dict[str, Any] = await prober.stop()
    for problem in during["problems"]:
        echo_stderr(f"  {problem}")
    return {
        "query before rollovers p99": before["p99_ms"],
        "query during 24 rollovers p99": during["p99_ms"],
        "p99 during rollovers": during["p99_ms"] / before["p99_ms"],
        "queries failed or incomplete in 24 rollovers": (
            during["failed"] + during["incomplete"] + during["missed"]
        ),
    }


async def _feed(producer: Producer) -> None:
    """Add listings until cancelled, so that every bucket has some."""
    number = 0
    while True:
        vectors: dict[str, npt.NDArray[np.float32]] = {}
        for _ in range(10):
            number += 1
            vectors[f"new-{number}"] = vector_of(f"new-{number}", DIMENSIONS)
        # One partition, so that each bucket is one shard.
        await producer.send_all(embedded_record(i, v, SPACE) for i, v in vectors.items())
        await asyncio.sleep(0.5)


async def _rolled_over(on: Installation) -> None:
    rolled: set[tuple[str, str]] = set()

    async def enough() -> bool:
        for one in await on.servings():
            if ready_reason(one) == "RolledOut":
                rolled.add((one["metadata"]["name"], one["status"]["image"]))
        return len(rolled) >= ROLLOVERS

    await until(enough, f"{ROLLOVERS} rollovers", limit_seconds=_LONG)
