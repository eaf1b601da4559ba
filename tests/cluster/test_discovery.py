"""Discovery on a real cluster: real Services, pods and slices, and an API server that goes away."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from shashin.cli.active_model import _tell_routers
from shashin.discovery.kubernetes import KubernetesDiscovery
from shashin.discovery.open import set_active_model
from shashin.discovery.protocol import Endpoint
from shashin.errors import KubernetesUnavailable
from shashin.kube.client import KubeClient
from shashin.kube.reflector import WatchTimes
from shashin.kube.resources import CONFIG_MAPS, DEPLOYMENTS, ENDPOINT_SLICES, SERVICES
from shashin.model_space import ModelSpace
from tests.support.api_proxy import ApiProxy
from tests.support.kube_objects import config_map, endpoint, endpoint_slice
from tests.support.waiting import until

TIMES = WatchTimes(longest_backoff_seconds=0.3)
PAUSE_IMAGE = "registry.k8s.io/pause:3.10"
"""Which every node has."""


@pytest.fixture
async def discovery(through: KubeClient, namespace: str) -> AsyncIterator[KubernetesDiscovery]:
    """Discovery in the test's namespace, behind the proxy."""
    discovery = KubernetesDiscovery(namespace, open_client=lambda: through, times=TIMES)
    yield discovery
    await discovery.close()


async def finds(discovery: KubernetesDiscovery, *expected: Endpoint) -> None:
    """Wait until it finds exactly these endpoints."""

    async def found() -> bool:
        return await discovery.endpoints() == sorted(expected)

    await until(found, f"discovery finds {expected}")


def labelled_service(name: str, **labels: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": name,
            "labels": {f"shashin.dev/{label}": text for label, text in labels.items()},
        },
        "spec": {
            "clusterIP": "None",
            "selector": {"app": name},
            "ports": [
                {"name": "http", "port": 9100, "targetPort": "http"},
                {"name": "grpc", "port": 50054, "targetPort": "grpc"},
            ],
        },
    }


def deployment(name: str, replicas: int) -> dict[str, Any]:
    container = {
        "name": "pause",
        "image": PAUSE_IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "ports": [
            {"name": "http", "containerPort": 9100},
            {"name": "grpc", "containerPort": 50054},
        ],
        # So that a pod is seen while it terminates.
        "lifecycle": {"preStop": {"sleep": {"seconds": 20}}},
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [container], "terminationGracePeriodSeconds": 25},
            },
        },
    }


async def entries(client: KubeClient, namespace: str) -> list[dict[str, Any]]:
    """Return all endpoints in all slices."""
    listed = await client.list(ENDPOINT_SLICES, namespace=namespace)
    return [entry for one in listed.items for entry in one.get("endpoints") or ()]


async def test_the_pods_of_a_labelled_service_are_endpoints_until_they_terminate(
    client: KubeClient, discovery: KubernetesDiscovery, namespace: str
) -> None:
    service = labelled_service("hourly", role="index-server", tier="hourly", model="demo-v1")
    await client.create(SERVICES, service, namespace=namespace)
    await client.create(
        SERVICES, {**labelled_service("other"), "metadata": {"name": "other"}}, namespace=namespace
    )
    assert await discovery.endpoints() == []
    await client.create(DEPLOYMENTS, deployment("hourly", 2), namespace=namespace)
    await client.create(DEPLOYMENTS, deployment("other", 1), namespace=namespace)

    async def both() -> list[Endpoint] | None:
        found = await discovery.endpoints()
        return found if len(found) == 2 else None

    pods = await until(both, "both pods are found")
    for found in pods:
        assert (found.role, found.tier, found.model_id) == ("index-server", "hourly", "demo-v1")
        assert found.name.startswith("hourly-")
        assert found.address.endswith(":50054")
    assert {pod.address.partition(":")[0] for pod in pods} == {
        entry["addresses"][0]
        for entry in await entries(client, namespace)
        if entry["targetRef"]["name"].startswith("hourly-")
    }
    await client.apply(
        DEPLOYMENTS,
        {**deployment("hourly", 1)},
        manager="test",
        namespace=namespace,
    )

    async def one() -> list[Endpoint] | None:
        found = await discovery.endpoints()
        return found if len(found) == 1 else None

    (left,) = await until(one, "the pod that terminates is not called any more")
    terminating = [
        entry for entry in await entries(client, namespace) if entry["conditions"]["terminating"]
    ]
    assert [entry["conditions"]["serving"] for entry in terminating] == [True], "it still answers"
    assert left in pods
    await client.delete(SERVICES, "hourly", namespace=namespace)
    await finds(discovery)


async def test_tiers_appear_and_go_while_it_runs(
    client: KubeClient, discovery: KubernetesDiscovery, namespace: str
) -> None:
    await finds(discovery)
    indexer = Endpoint("i-0", "indexer", "10.0.0.1:50053", "live")
    daily = Endpoint(
        "d-0", "index-server", "10.0.0.2:50054", "daily", "demo-v1", group="daily", zone="zone-a"
    )
    one = endpoint_slice(
        "indexer", endpoint("10.0.0.1", pod="i-0"), role="indexer", tier="live", port=50053
    )
    await client.create(ENDPOINT_SLICES, one, namespace=namespace)
    await finds(discovery, indexer)
    other = endpoint_slice(
        "daily", endpoint("10.0.0.2", pod="d-0", zone="zone-a"), tier="daily", model="demo-v1"
    )
    await client.create(ENDPOINT_SLICES, other, namespace=namespace)
    await finds(discovery, indexer, daily)
    await client.delete(ENDPOINT_SLICES, "daily", namespace=namespace)
    await finds(discovery, indexer)
    assert discovery.problem is None


async def test_the_last_known_endpoints_stay_while_the_api_server_is_away(
    client: KubeClient, discovery: KubernetesDiscovery, proxy: ApiProxy, namespace: str
) -> None:
    kept = Endpoint("d-0", "index-server", "10.0.0.2:50054", "daily", group="daily")
    made = endpoint_slice("daily", endpoint("10.0.0.2", pod="d-0"), tier="daily")
    await client.create(ENDPOINT_SLICES, made, namespace=namespace)
    await finds(discovery, kept)
    proxy.refuse()
    await until(lambda: discovery.problem, "the outage is reported")
    await client.delete(ENDPOINT_SLICES, "daily", namespace=namespace)
    assert await discovery.endpoints() == [kept]
    assert "endpointslices.discovery.k8s.io" in str(discovery.problem)
    proxy.come_back()
    await finds(discovery)
    await until(lambda: discovery.problem is None, "the recovery is reported")


async def test_without_an_api_server_a_start_says_so_and_goes_on(
    client: KubeClient, discovery: KubernetesDiscovery, proxy: ApiProxy, namespace: str
) -> None:
    proxy.refuse()
    with pytest.raises(KubernetesUnavailable):
        await discovery.endpoints()
    assert await discovery.active_model() is None
    assert discovery.problem is not None
    proxy.come_back()
    made = endpoint_slice("daily", endpoint("10.0.0.2", pod="d-0"), tier="daily")
    await client.create(ENDPOINT_SLICES, made, namespace=namespace)

    async def found() -> bool:
        try:
            return len(await discovery.endpoints()) == 1
        except KubernetesUnavailable:
            return False

    await until(found, "the endpoint is found")


async def test_the_active_model_follows_its_config_map(
    client: KubeClient, discovery: KubernetesDiscovery, namespace: str
) -> None:
    def is_active(model: ModelSpace | None) -> Callable[[], Any]:
        async def probe() -> bool:
            return await discovery.active_model() == model

        return probe

    async def put(*, model_id: str, dimensions: str) -> None:
        made = config_map("shashin-active-model", model_id=model_id, dimensions=dimensions)
        await client.apply(CONFIG_MAPS, made, manager="test", namespace=namespace)

    assert await discovery.active_model() is None
    await put(model_id="demo-v1", dimensions="128")
    await until(is_active(ModelSpace("demo-v1", 128)), "the first model is active")
    await put(model_id="demo-v2", dimensions="many")

    async def is_reported() -> bool:
        assert await discovery.active_model() == ModelSpace("demo-v1", 128)
        return "dimensions is 'many'" in (discovery.problem or "")

    await until(is_reported, "the wrong ConfigMap is reported")
    await put(model_id="demo-v2", dimensions="256")
    await until(is_active(ModelSpace("demo-v2", 256)), "the second model is active")
    assert discovery.problem is None
    await client.delete(CONFIG_MAPS, "shashin-active-model", namespace=namespace)
    await until(is_active(None), "no model is named")


async def test_a_service_with_wrong_labels_is_reported_and_holds_up_no_other(
    client: KubeClient, discovery: KubernetesDiscovery, namespace: str
) -> None:
    good = endpoint_slice("daily", endpoint("10.0.0.2", pod="d-0"), tier="daily")
    wrong = endpoint_slice("weekly", endpoint("10.0.0.3", pod="w-0"), tier="weekly")
    await client.create(ENDPOINT_SLICES, wrong, namespace=namespace)
    await client.create(ENDPOINT_SLICES, good, namespace=namespace)
    found = Endpoint("d-0", "index-server", "10.0.0.2:50054", "daily", group="daily")
    await finds(discovery, found)
    assert "endpoint slice 'weekly': label shashin.dev/tier is 'weekly'" in str(discovery.problem)


async def test_an_activated_model_is_named_to_every_router(
    discovery: KubernetesDiscovery,
    kubeconfig: Path,
    namespace: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    assert await discovery.active_model() is None
    for model in (
        ModelSpace("demo-v1", 128),
        ModelSpace("demo-v2", 256),
        ModelSpace("demo-v1", 128),
    ):
        await set_active_model(f"kubernetes:///{namespace}", model)

        async def named(model: ModelSpace = model) -> bool:
            return await discovery.active_model() == model

        await until(named, f"{model} is active")


async def test_activating_says_what_to_do_when_kubernetes_does_not_respond(
    proxy: ApiProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "through-the-proxy.yaml"))
    proxy.refuse()
    with pytest.raises(
        KubernetesUnavailable, match="is active in the model repository, but routers"
    ):
        await _tell_routers("kubernetes:///shop", ModelSpace("demo-v1", 128))
