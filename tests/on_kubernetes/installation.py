"""One installation in a namespace of its own, as ``kubectl apply -k`` makes it."""

from __future__ import annotations

import asyncio
import base64
import json
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml

from shashin.client.router import RouterClient
from shashin.kube.client import KubeClient
from shashin.kube.credentials import KubeconfigCredentials
from shashin.kube.resource import KubeObject, Resource
from shashin.kube.resources import CONFIG_MAPS, DEPLOYMENTS, INDEX_BUILDS, INDEX_SERVINGS, PODS
from tests.on_kubernetes.cluster import Cluster
from tests.on_kubernetes.host import HostServices
from tests.support.kube_objects import NAMESPACES
from tests.support.waiting import until

ROOT = Path(__file__).parents[2]
OVERLAY = ROOT / "k8s" / "overlays" / "lab"

BUCKET_SECONDS = 20
DEADLINE_MS = 2_500
MODEL, DIMENSIONS = "demo-v1", 128


_PROBER = Path(__file__).with_name("prober_pod.py")
_START_SECONDS = 240.0


class Installation:
    """What tests see and do of it."""

    def __init__(self, cluster: Cluster, client: KubeClient, namespace: str, folder: Path) -> None:
        self.cluster, self.client, self.namespace = cluster, client, namespace
        self._folder = folder
        self._images: Mapping[str, str] = {}

    # --- installing -----------------------------------------------------------------------------

    async def apply(self, host: HostServices, images: Mapping[str, str], **settings: str) -> None:
        """Install everything with one ``kubectl apply -k``."""
        self._images = images
        environment = {
            **host.environment,
            "SHASHIN_BUCKET_SECONDS": str(BUCKET_SECONDS),
            "SHASHIN_GRACE_SECONDS": "1",
            # Everything runs on one small machine, where a pod that starts may take a core for seconds.
            "SHASHIN_DEADLINE_MS": str(DEADLINE_MS),
            "SHASHIN_SHED_WAIT_SECONDS": str(DEADLINE_MS / 1000),
            "SHASHIN_SHED_ANSWER_SECONDS": str(DEADLINE_MS / 1000),
            "SHASHIN_RELEASE_AFTER_SECONDS": str(DEADLINE_MS / 500),
            "SHASHIN_HAND_OVER_AFTER_SECONDS": str(DEADLINE_MS / 500),
            "SHASHIN_HIDE_SUPERSEDED_AFTER_SECONDS": str(DEADLINE_MS / 500),
            "SHASHIN_INDEX_SERVER_IMAGE": images["index-server"],
            "SHASHIN_BUILDS_IMAGE": images["builds"],
            "SHASHIN_IMAGE_REPOSITORY": f"{self.cluster.registry}/{self.namespace}/indexes",
            "SHASHIN_REGISTRY_PLAIN_HTTP": self.cluster.registry,
            **settings,
        }
        config = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "shashin"},
            "data": environment,
        }
        kustomization = {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "namespace": self.namespace,
            "resources": [f"../../{OVERLAY.relative_to(ROOT)}"],
            "images": [
                {"name": f"shashin/{service}", **_pinned(image)}
                for service, image in images.items()
                if service != "index-server"
            ],
            # The embedder runs outside: its image brings PyTorch.
            "replicas": [{"name": "router", "count": 2}, {"name": "embedder", "count": 0}],
            "patches": [{"path": "config.yaml"}],
        }
        (self._folder / "config.yaml").write_text(yaml.safe_dump(config))
        (self._folder / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
        await self.cluster.kubectl(
            "apply", "--server-side", "--force-conflicts", "-k", str(self._folder)
        )

    async def until_ready(self) -> None:
        """Wait until all pods of Deployments and StatefulSets are ready."""

        async def ready() -> bool:
            found = [
                one
                for resource in (DEPLOYMENTS, Resource("apps", "v1", "statefulsets"))
                for one in (await self.client.list(resource, namespace=self.namespace)).items
            ]
            return bool(found) and all(
                one.get("status", {}).get("readyReplicas", 0) == one["spec"]["replicas"]
                for one in found
            )

        try:
            await until(ready, "all pods are ready", limit_seconds=_START_SECONDS)
        except AssertionError as error:
            pods = await self.cluster.kubectl("get", "pods", "-n", self.namespace, "-o", "wide")
            raise AssertionError(f"{error}\n{pods}") from None

    async def announce_embedder(self, address: str) -> None:
        """Tell discovery of the embedder outside."""
        host, _, port = address.rpartition(":")
        slice_of_it = {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": "embedder-outside",
                "labels": {
                    "kubernetes.io/service-name": "embedder-outside",
                    "shashin.dev/role": "embedder",
                    "shashin.dev/model": MODEL,
                },
            },
            "addressType": "IPv4",
            "endpoints": [{"addresses": [host], "conditions": {"ready": True}}],
            "ports": [{"name": "grpc", "port": int(port), "protocol": "TCP"}],
        }
        slices = Resource("discovery.k8s.io", "v1", "endpointslices")
        await self.client.apply(slices, slice_of_it, manager="test", namespace=self.namespace)

    # --- looking --------------------------------------------------------------------------------

    @asynccontextmanager
    async def router(self) -> AsyncIterator[RouterClient]:
        """Give a client of some router."""
        async with (
            self.cluster.forwarded(self.namespace, "service/router", 50051) as address,
            RouterClient(address) as client,
        ):
            yield client

    async def pods(self, selector: str) -> list[KubeObject]:
        """Return pods that do not terminate."""
        listed = await self.client.list(PODS, namespace=self.namespace, label_selector=selector)
        return [pod for pod in listed.items if "deletionTimestamp" not in pod["metadata"]]

    async def servings(self) -> list[KubeObject]:
        """Return all IndexServings."""
        return list((await self.client.list(INDEX_SERVINGS, namespace=self.namespace)).items)

    async def builds(self) -> list[KubeObject]:
        """Return all IndexBuilds."""
        return list((await self.client.list(INDEX_BUILDS, namespace=self.namespace)).items)

    async def state(self) -> str:
        """Return what people would look at."""
        objects = await self.cluster.kubectl(
            *("get", "indexservings,indexbuilds,jobs,pods", "-n", self.namespace, "-o", "wide"),
            check=False,
        )
        events = await self.cluster.kubectl(
            *("get", "events", "-n", self.namespace, "--sort-by=.lastTimestamp"), check=False
        )
        return f"{objects}\n{events}"

    # --- doing ----------------------------------------------------------------------------------

    async def kill(self, pod: KubeObject) -> str:
        """Kill a pod at once, without time to drain; returns its name."""
        name: str = pod["metadata"]["name"]
        await self.cluster.kubectl(
            *("delete", "pod", name, "-n", self.namespace),
            *("--grace-period=0", "--force", "--wait=false"),
        )
        return name

    async def start_prober(
        self, vectors: Mapping[str, npt.NDArray[np.float32]], *, rate: float
    ) -> Prober:
        """Start a pod that searches all the time."""
        queries = {
            listing_id: base64.b64encode(vector.astype("<f4").tobytes()).decode()
            for listing_id, vector in vectors.items()
        }
        config = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "prober"},
            "data": {"prober.py": _PROBER.read_text(), "queries.json": json.dumps(queries)},
        }
        await self.client.apply(CONFIG_MAPS, config, manager="test", namespace=self.namespace)
        pod = _prober_pod(self._images["router"], rate)
        await self.client.apply(PODS, pod, manager="test", namespace=self.namespace)
        prober = Prober(self)
        await until(prober.report, "the prober searches", limit_seconds=60.0)
        return prober


class Prober:
    """The pod that searches."""

    def __init__(self, installation: Installation) -> None:
        self._installation = installation

    async def report(self) -> dict[str, Any]:
        """Return what came of its searches until now; empty while it has not begun."""
        text = await self._installation.cluster.kubectl(
            *("logs", "prober", "-n", self._installation.namespace, "--tail=1"), check=False
        )
        try:
            found = json.loads(text.strip().splitlines()[-1])
        except (ValueError, IndexError):
            return {}
        return found if isinstance(found, dict) else {}

    async def stop(self) -> dict[str, Any]:
        """Ask it to end; returns what came of all its searches."""
        name = self._installation.namespace
        kubectl = self._installation.cluster.kubectl
        following = asyncio.ensure_future(
            kubectl("logs", "prober", "-n", name, "--follow", "--tail=1")
        )
        await asyncio.sleep(0.5)
        await kubectl("delete", "pod", "prober", "-n", name, "--wait=false")
        text = await following
        return dict(json.loads(text.strip().splitlines()[-1]))


@asynccontextmanager
async def installation(cluster: Cluster) -> AsyncIterator[Installation]:
    """Give a namespace for an installation; it is deleted in the end."""
    namespace = f"shashin-run-{uuid.uuid4().hex[:8]}"
    folder = ROOT / "build" / namespace
    folder.mkdir(parents=True)
    client = KubeClient(KubeconfigCredentials(str(cluster.kubeconfig)))
    try:
        yield Installation(cluster, client, namespace, folder)
    finally:
        await client.delete(NAMESPACES, namespace, namespace=None)
        await client.close()


def _pinned(image: str) -> dict[str, str]:
    name, _, digest = image.partition("@")
    return {"newName": name, "digest": digest}


def _prober_pod(image: str, rate: float) -> KubeObject:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "prober"},
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 15,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 10001,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [
                {
                    "name": "prober",
                    "image": image,
                    "command": [
                        *("python", "/prober/prober.py", "dns:///router-pods:50051"),
                        *("/prober/queries.json", str(rate)),
                    ],
                    "securityContext": {
                        "allowPrivilegeEscalation": False,
                        "readOnlyRootFilesystem": True,
                        "capabilities": {"drop": ["ALL"]},
                    },
                    "volumeMounts": [{"name": "prober", "mountPath": "/prober"}],
                }
            ],
            "volumes": [{"name": "prober", "configMap": {"name": "prober"}}],
        },
    }
