"""The discoveries to test with: always ``file`` and ``static``, ``kubernetes`` if there is a cluster."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import AsyncIterator, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Protocol

import pytest

from shashin.discovery.kubernetes import KubernetesDiscovery
from shashin.discovery.open import open_discovery
from shashin.discovery.protocol import Discovery, Endpoint
from shashin.kube.client import KubeClient
from shashin.kube.credentials import KubeconfigCredentials
from shashin.kube.resources import CONFIG_MAPS, ENDPOINT_SLICES
from shashin.model_space import ModelSpace
from tests.support.kube_objects import NAMESPACES, config_map, endpoint, endpoint_slice

VARIABLE = "SHASHIN_TEST_KUBECONFIG"


class Source(Protocol):
    """Where a discovery learns of endpoints."""

    async def publish(
        self, endpoints: Sequence[Endpoint], active_model: ModelSpace | None = None
    ) -> None:
        """Make these the endpoints, and this the active model."""
        ...

    def open(self) -> Discovery:
        """Open a discovery of it."""
        ...


class FileSource:
    """A discovery file."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "discovery.json"

    async def publish(
        self, endpoints: Sequence[Endpoint], active_model: ModelSpace | None = None
    ) -> None:
        fields = ("name", "role", "tier", "address", "model_id", "group", "zone")
        document = {
            "endpoints": [{name: getattr(one, name) for name in fields} for one in endpoints],
            "active_model": active_model and vars(active_model),
        }
        new = self._path.with_suffix(".new")
        new.write_text(json.dumps(document))
        new.rename(self._path)

    def open(self) -> Discovery:
        return open_discovery(self._path.as_uri())


class StaticSource:
    """A setting, which never changes."""

    def __init__(self) -> None:
        self._uri = ""

    async def publish(
        self, endpoints: Sequence[Endpoint], active_model: ModelSpace | None = None
    ) -> None:
        assert not self._uri, "it cannot change"
        assert active_model is None, "it names no active model"
        self._uri = "static:" + ",".join(
            f"{one.role}{'/' + one.tier if one.tier else ''}"
            f"{'@' + one.model_id if one.model_id else ''}={one.address}"
            f"{';group=' + one.group if one.group else ''}{';zone=' + one.zone if one.zone else ''}"
            for one in endpoints
        )

    def open(self) -> Discovery:
        return open_discovery(self._uri)


class KubernetesSource:
    """A namespace with a slice per endpoint."""

    def __init__(self, kubeconfig: str, namespace: str) -> None:
        self._kubeconfig, self._namespace = kubeconfig, namespace
        self._client = KubeClient(KubeconfigCredentials(kubeconfig))

    async def start(self) -> None:
        named = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self._namespace}}
        await self._client.create(NAMESPACES, named, namespace=None)

    async def stop(self) -> None:
        await self._client.delete(NAMESPACES, self._namespace, namespace=None)
        await self._client.close()

    async def publish(
        self, endpoints: Sequence[Endpoint], active_model: ModelSpace | None = None
    ) -> None:
        wanted = {one.name: _slice_of(one) for one in endpoints}
        listed = await self._client.list(ENDPOINT_SLICES, namespace=self._namespace)
        for name in {found["metadata"]["name"] for found in listed.items} - wanted.keys():
            await self._client.delete(ENDPOINT_SLICES, name, namespace=self._namespace)
        for made in wanted.values():
            await self._client.apply(
                ENDPOINT_SLICES, made, manager="test", namespace=self._namespace
            )
        if active_model is not None:
            made = config_map(
                "shashin-active-model",
                model_id=active_model.model_id,
                dimensions=str(active_model.dimensions),
            )
            await self._client.apply(CONFIG_MAPS, made, manager="test", namespace=self._namespace)

    def open(self) -> Discovery:
        return KubernetesDiscovery(
            self._namespace,
            open_client=lambda: KubeClient(KubeconfigCredentials(self._kubeconfig)),
        )


def _slice_of(one: Endpoint) -> dict[str, object]:
    host, _, port = one.address.rpartition(":")
    address = host.strip("[]")
    return endpoint_slice(
        one.name,
        endpoint(address, pod=one.name, zone=one.zone),
        role=one.role,
        tier=one.tier,
        model=one.model_id,
        port=int(port),
        family=f"IPv{ip_address(address).version}",
        service=one.group or one.name,
    )


@pytest.fixture(params=["file", "kubernetes", "static"])
async def source(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Source]:
    """A source without endpoints."""
    if request.param == "file":
        yield FileSource(tmp_path)
    elif request.param == "static":
        yield StaticSource()
    elif kubeconfig := os.environ.get(VARIABLE):
        source = KubernetesSource(kubeconfig, f"shashin-test-{uuid.uuid4().hex[:10]}")
        await source.start()
        yield source
        await source.stop()
    else:
        pytest.skip(f"needs a Kubernetes cluster: set {VARIABLE} to an admin's kubeconfig")


@pytest.fixture
def changing_source(source: Source) -> Source:
    """A source whose endpoints can change."""
    if isinstance(source, StaticSource):
        pytest.skip("endpoints in a setting never change")
    return source
