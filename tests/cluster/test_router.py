"""A router on Kubernetes: it follows Services while it answers, and loses none to an outage."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from shashin.kube.client import KubeClient
from shashin.kube.resources import CONFIG_MAPS, ENDPOINT_SLICES
from tests.support.api_proxy import ApiProxy
from tests.support.kube_objects import config_map, endpoint, endpoint_slice
from tests.support.running_router import (
    DIMENSIONS,
    MODEL,
    Listing,
    RunningEndpoint,
    System,
    hits,
    running_system,
    shard_of,
    vector_of,
)
from tests.support.waiting import until

HOST_VARIABLE = "SHASHIN_TEST_HOST"
OTHER = "other-model"


@pytest.fixture
async def system(
    proxy: ApiProxy, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[System]:
    """A router that discovers on the cluster, through the proxy."""
    if not (host := os.environ.get(HOST_VARIABLE)):
        pytest.skip(
            f"needs an address of this machine that slices may have, no loopback: set {HOST_VARIABLE}"
        )
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "through-the-proxy.yaml"))
    async with running_system(
        tmp_path, discovery=f"kubernetes:///{namespace}", host=host
    ) as system:
        yield system


class Services:
    """The slices of a namespace, as the control plane would make them."""

    def __init__(self, client: KubeClient, namespace: str) -> None:
        self._client, self._namespace = client, namespace

    async def publish(self, running: RunningEndpoint) -> None:
        """Make an endpoint known."""
        host, _, port = running.address.rpartition(":")
        made = endpoint_slice(
            running.name,
            endpoint(host, pod=running.name),
            role=running.role,
            tier=running.tier,
            model=running.announced_model,
            port=int(port),
        )
        await self._client.apply(ENDPOINT_SLICES, made, manager="test", namespace=self._namespace)

    async def remove(self, running: RunningEndpoint) -> None:
        """Make it unknown."""
        await self._client.delete(ENDPOINT_SLICES, running.name, namespace=self._namespace)

    async def activate(self, model_id: str) -> None:
        """Name the active model."""
        made = config_map("shashin-active-model", model_id=model_id, dimensions=str(DIMENSIONS))
        await self._client.apply(CONFIG_MAPS, made, manager="test", namespace=self._namespace)


@pytest.fixture
def services(client: KubeClient, namespace: str) -> Services:
    """The test's Services."""
    return Services(client, namespace)


async def test_tiers_are_searched_as_they_appear_and_go(system: System, services: Services) -> None:
    live = await system.index("live", "live", shard_of([Listing("new")]), announce=False)
    await services.publish(live)
    await system.until_described("live")
    assert hits(await system.search(vector_of("new"), k=1)) == [("new", 1, 0)]
    daily = await system.index("daily", "daily", shard_of([Listing("old")]), announce=False)
    await services.publish(daily)
    await system.until_described("daily", "live")
    assert hits(await system.search(vector_of("old"), k=1)) == [("old", 1, 0)]
    await services.remove(daily)
    await system.until_described("live")
    assert system.health.problems() == []


async def test_searches_go_on_while_the_api_server_is_away(
    system: System, services: Services, proxy: ApiProxy
) -> None:
    live = await system.index("live", "live", shard_of([Listing("new")]), announce=False)
    await services.publish(live)
    await system.until_described("live")
    proxy.refuse()
    await until(
        lambda: any("endpointslices" in problem for problem in system.health.problems()),
        "the outage is on /healthz",
    )
    assert system.health.readiness_problems() == []
    assert hits(await system.search(vector_of("new"), k=1)) == [("new", 1, 0)]
    daily = await system.index("daily", "daily", shard_of([Listing("old")]), announce=False)
    await services.publish(daily)
    proxy.come_back()
    await system.until_described("daily", "live")
    await until(lambda: not system.health.problems(), "nothing is wrong any more")


async def test_the_router_follows_the_active_model_of_the_cluster(
    system: System, services: Services
) -> None:
    for name, model_id in (("a", MODEL), ("b", OTHER)):
        running = await system.index(
            f"live-{name}",
            "live",
            shard_of([Listing(f"of-{name}")]),
            model_id=model_id,
            announce=False,
            announced_model=model_id,
        )
        await services.publish(running)

    async def is_ready(name: str) -> bool:
        return name in [one.name for one in (await system.status()).endpoints if one.ready]

    await until(lambda: is_ready("live-a"), "the model of the settings is searched")
    assert (await system.search(vector_of("of-a"), k=1)).model_id == MODEL
    await services.activate(OTHER)
    await until(lambda: is_ready("live-b"), "the other model is searched")
    answer = await system.search(vector_of("of-b"), k=1)
    assert (answer.model_id, hits(answer)) == (OTHER, [("of-b", 1, 0)])
