"""IndexBuilds on a real cluster: what they read, run in and need."""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shashin.builds.document import IndexBuild, parse_build
from shashin.builds.resource import object_of, status_of
from shashin.builds.resource_status import IndexBuildStatus
from shashin.kube.client import KubeClient
from shashin.kube.resource import KubeObject, Resource
from shashin.kube.resources import CONFIG_MAPS, INDEX_BUILDS, JOBS, LEASES, PODS
from shashin.objectstore.gcs import EMULATOR_VARIABLE
from shashin.objectstore.open import opened_object_store
from shashin.offsets.log_position import LogPosition
from shashin.repository.hidden_snapshots import HiddenSnapshots
from shashin.repository.repository import ModelRepository
from shashin.shards.format.hidden_snapshot import HiddenSnapshot
from tests.on_kubernetes.images import pushed_images
from tests.support import fake_gcs
from tests.support.fake_gcs import FakeGcs
from tests.support.kube_objects import NAMESPACES, SERVICE_ACCOUNTS, config_map, free_lease
from tests.support.made_shards import DIMENSIONS, MODEL, commit, listings, open_shard
from tests.support.waiting import until_in_cluster

HOST_VARIABLE = "SHASHIN_TEST_HOST"
"""Address of this machine as pods see it."""
REGISTRY_VARIABLE = "SHASHIN_TEST_REGISTRY"
BASE = os.environ.get("SHASHIN_TEST_BASE_IMAGE", "python:3.11-slim-bookworm")

DAY = datetime(2026, 3, 14, tzinfo=UTC)

K8S = Path(__file__).parents[2] / "k8s"
VOLUMES = Resource("", "v1", "persistentvolumes")
CLAIMS = Resource("", "v1", "persistentvolumeclaims")

_DOCKERFILE = f"FROM {BASE}\nUSER 10001:10001\n"


def required(variable: str, what: str) -> str:
    """Return a variable's value, or skip the test."""
    if not (value := os.environ.get(variable)):
        pytest.skip(f"needs {what}: set {variable}")
    return value


def made_builds_image(lock: Path) -> str:
    """Build and push the image of the built-in steps; skips the test if that is not possible.

    Args:
        lock: a file that all test processes share: the first one builds, the others find it built.
    """
    registry = _registry_to_push_to()
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        return asyncio.run(pushed_images(registry, ["builds"]))["builds"]


def _registry_to_push_to() -> str:
    registry = required(REGISTRY_VARIABLE, "a registry that the cluster pulls from")
    if shutil.which("docker") is None or _docker("info").returncode:
        pytest.skip("needs a Docker engine to build images with")
    return registry


def made_users_image(folder: Path) -> str:
    """Build and push an image of which nothing is Shashin's; skips the test if that is not possible."""
    registry = _registry_to_push_to()
    (folder / "Dockerfile").write_text(_DOCKERFILE)
    tag = f"{registry}/shashin-test/users-step:1"
    for command in (("build", "--quiet", "--tag", tag, str(folder)), ("push", tag)):
        ended = _docker(*command)
        assert not ended.returncode, f"docker {' '.join(command)}: {ended.stderr}{ended.stdout}"
    return tag


def _docker(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["docker", *arguments], capture_output=True, text=True, timeout=300, check=False
    )


class ClusterBuilds:
    """A namespace whose builds have a model repository on this machine."""

    def __init__(self, client: KubeClient, namespace: str, server: FakeGcs, folder: Path) -> None:
        self.client, self.namespace = client, namespace
        self.uri = f"gs://{fake_gcs.BUCKET}/{namespace}"
        self._server, self._folder = server, folder

    async def set_up(self) -> None:
        """Make what an installation has; the namespace takes only pods that are restricted."""
        enforced = {"pod-security.kubernetes.io/enforce": "restricted"}
        await self.client.merge_patch(
            NAMESPACES, self.namespace, {"metadata": {"labels": enforced}}, namespace=None
        )
        settings = {
            "SHASHIN_REPOSITORY": self.uri,
            "SHASHIN_MODEL_ID": MODEL,
            EMULATOR_VARIABLE: self._server.url,
        }
        await self.client.create(
            CONFIG_MAPS, config_map("shashin", None, **settings), namespace=self.namespace
        )
        account = {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": "index-build"},
            "automountServiceAccountToken": False,
        }
        await self.client.create(SERVICE_ACCOUNTS, account, namespace=self.namespace)
        await self.client.create(LEASES, free_lease("shashin-controller"), namespace=self.namespace)

    async def seal(self, shards: int, *, day: datetime = DAY, first: int = 0) -> list[str]:
        """Commit hourly shards of ten listings each; returns their ids."""
        ids = []
        async with opened_object_store(self.uri) as store:
            for number in range(first, first + shards):
                begin = 10 * number
                start = int((day + timedelta(hours=number - first)).timestamp())
                stored = await commit(
                    ModelRepository(store),
                    open_shard(listings(begin, begin + 10), from_offset=begin),
                    self._folder / "sealed",
                    bucket_start=start,
                )
                snapshot = HiddenSnapshot(
                    stored.manifest.shard_id,
                    stored.manifest.rows_sha256,
                    np.array([0], dtype=np.uint32),
                    LogPosition("topic-1", {0: 7, 1: 5}),
                    1_773_000_000.0,
                )
                await HiddenSnapshots(store).write(stored.manifest, snapshot)
                ids.append(stored.manifest.shard_id)
        return ids

    async def published(self, tier: str = "daily") -> list[Any]:
        """Return the manifests of a tier."""
        async with opened_object_store(self.uri) as store:
            return [one.manifest for one in (await ModelRepository(store).shards(MODEL, tier))[0]]

    def build(self, name: str, parents: Sequence[str], **spec: Any) -> IndexBuild:
        """Return a build of a day."""
        document = {
            "apiVersion": "shashin.dev/v1alpha1",
            "kind": "IndexBuild",
            "metadata": {"name": name},
            "spec": {
                "model": MODEL,
                "dimensions": DIMENSIONS,
                "tier": "daily",
                "window": {
                    "start": f"{DAY:%Y-%m-%dT%H:%M:%SZ}",
                    "end": f"{DAY + timedelta(days=1):%Y-%m-%dT%H:%M:%SZ}",
                },
                "source": {"shards": list(parents)},
                **spec,
            },
        }
        return parse_build(document, origin="a test")

    async def create(self, build: IndexBuild) -> KubeObject:
        """Create a build."""
        return await self.client.create(INDEX_BUILDS, object_of(build), namespace=self.namespace)

    async def annotate(self, name: str, **values: str | None) -> None:
        """Set annotations, named without their prefix."""
        patch = {
            "metadata": {"annotations": {f"shashin.dev/{key}": one for key, one in values.items()}}
        }
        await self.client.merge_patch(INDEX_BUILDS, name, patch, namespace=self.namespace)

    async def object(self, name: str) -> KubeObject:
        """Return a build as it is."""
        return await self.client.get(INDEX_BUILDS, name, namespace=self.namespace)

    async def status(self, name: str) -> IndexBuildStatus:
        """Return a build's status."""
        return status_of(await self.object(name))

    async def until(self, name: str, phase: str, *, attempt: int = 0) -> IndexBuildStatus:
        """Wait until an attempt is in a phase; returns the status."""

        async def holds() -> IndexBuildStatus | None:
            status = await self.status(name)
            return status if status.phase == phase and status.attempts >= attempt else None

        try:
            found: IndexBuildStatus = await until_in_cluster(holds, f"{name} is {phase}")
        except AssertionError as error:
            raise AssertionError(f"{error}: {await self.status(name)}") from None
        return found

    async def jobs(self) -> list[KubeObject]:
        """Return all Jobs."""
        return list((await self.client.list(JOBS, namespace=self.namespace)).items)

    async def pods(self) -> list[KubeObject]:
        """Return all pods."""
        return list((await self.client.list(PODS, namespace=self.namespace)).items)

    async def claim(self, name: str) -> None:
        """Make a volume on this machine that any user can write, and claim it."""
        folder = self._folder / name
        folder.mkdir()
        folder.chmod(0o777)
        volume = f"{self.namespace}-{name}"
        await self.client.create(
            VOLUMES,
            {
                "apiVersion": "v1",
                "kind": "PersistentVolume",
                "metadata": {"name": volume},
                "spec": {
                    "capacity": {"storage": "1Gi"},
                    "accessModes": ["ReadWriteMany"],
                    "persistentVolumeReclaimPolicy": "Retain",
                    "storageClassName": "",
                    "hostPath": {"path": str(folder)},
                    "claimRef": {"name": name, "namespace": self.namespace},
                },
            },
            namespace=None,
        )
        await self.client.create(
            CLAIMS,
            {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "metadata": {"name": name},
                "spec": {
                    "accessModes": ["ReadWriteMany"],
                    "storageClassName": "",
                    "volumeName": volume,
                    "resources": {"requests": {"storage": "1Gi"}},
                },
            },
            namespace=self.namespace,
        )

    async def delete_volumes(self) -> None:
        """Delete the volumes that were made, which are no part of the namespace."""
        listed = await self.client.list(VOLUMES, namespace=None)
        for one in listed.items:
            if one["spec"].get("claimRef", {}).get("namespace") == self.namespace:
                await self.client.delete(VOLUMES, one["metadata"]["name"], namespace=None)


@asynccontextmanager
async def cluster_builds(
    client: KubeClient, namespace: str, folder: Path
) -> AsyncIterator[ClusterBuilds]:
    """Set up a namespace for builds; the caller has set the variable of the emulator."""
    host = required(HOST_VARIABLE, "an address of this machine that pods can reach")
    required(fake_gcs.SERVER_VARIABLE, "fake-gcs-server")
    server = FakeGcs(folder / "gcs.log", host=host)
    os.environ[EMULATOR_VARIABLE] = server.url
    await server.start()
    try:
        await server.make_bucket()
        builds = ClusterBuilds(client, namespace, server, folder)
        await builds.set_up()
        try:
            yield builds
        finally:
            await builds.delete_volumes()
    finally:
        await server.kill()
