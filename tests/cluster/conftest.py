"""A real API server, named by SHASHIN_TEST_KUBECONFIG, and a namespace of each test's own in it."""

from __future__ import annotations

import os
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from shashin.kube.client import KubeClient
from shashin.kube.credentials import KubeconfigCredentials
from tests.support.api_proxy import ApiProxy, proxied
from tests.support.kube_objects import NAMESPACES

VARIABLE = "SHASHIN_TEST_KUBECONFIG"


@pytest.fixture
def kubeconfig() -> Path:
    """The path of an admin's kubeconfig."""
    if not (path := os.environ.get(VARIABLE)):
        pytest.skip(f"needs a Kubernetes cluster: set {VARIABLE} to an admin's kubeconfig")
    return Path(path)


@pytest.fixture
async def client(kubeconfig: Path) -> AsyncIterator[KubeClient]:
    """A client that reaches the API server directly."""
    client = KubeClient(KubeconfigCredentials(str(kubeconfig)))
    yield client
    await client.close()


@pytest.fixture
async def namespace(client: KubeClient) -> AsyncIterator[str]:
    """A new namespace."""
    name = f"shashin-test-{uuid.uuid4().hex[:10]}"
    await client.create(
        NAMESPACES,
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}},
        namespace=None,
    )
    yield name
    await client.delete(NAMESPACES, name, namespace=None)


@pytest.fixture
async def proxy(kubeconfig: Path, tmp_path: Path) -> AsyncIterator[ApiProxy]:
    """A proxy to the API server."""
    async with proxied(kubeconfig, tmp_path) as (proxy, _):
        yield proxy


@pytest.fixture
async def through(proxy: ApiProxy, tmp_path: Path) -> AsyncIterator[KubeClient]:
    """A client that reaches the API server through the proxy."""
    client = KubeClient(KubeconfigCredentials(str(tmp_path / "through-the-proxy.yaml")))
    yield client
    await client.close()
