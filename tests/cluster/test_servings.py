"""IndexServings on a real cluster: the controller as a process, with real pods."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from shashin.errors import KubernetesError, KubernetesForbidden, KubernetesNotFound
from shashin.kube.client import KubeClient
from shashin.kube.resource import KubeObject, Resource
from shashin.kube.resources import (
    CONFIG_MAPS,
    DEPLOYMENTS,
    DISRUPTION_BUDGETS,
    EVENTS,
    INDEX_SERVINGS,
    LEASES,
    PODS,
    SERVICES,
)
from tests.support.api_proxy import ApiProxy
from tests.support.definitions import apply_definitions
from tests.support.faulty_api import FaultyApi, faulty_api
from tests.support.kube_objects import SERVICE_ACCOUNTS, config_map, free_lease
from tests.support.probe_images import ProbeImages, made_probe_images
from tests.support.running_service import RunningService
from tests.support.serving_documents import DOCUMENT
from tests.support.waiting import until_in_cluster


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> ProbeImages:
    return made_probe_images(tmp_path_factory.mktemp("probes"))


_RESOURCES = {"requests": {"cpu": "10m", "memory": "16Mi"}}
"""Of a probe's pod. With those of an index server, the rollouts of several tests at once would wait for each
other on a node of two cores: old pods stay until new ones are ready."""


class Servings:
    """The IndexServings of a namespace."""

    def __init__(self, client: KubeClient, namespace: str) -> None:
        self.client, self.namespace = client, namespace

    async def apply(self, name: str, image: str, **spec: Any) -> None:
        made = {**DOCUMENT, "metadata": {"name": name}}
        own = {"image": image, "replicas": 1, "resources": _RESOURCES}
        made["spec"] = {**DOCUMENT["spec"], **own, **spec}
        await self.client.apply(INDEX_SERVINGS, made, manager="test", namespace=self.namespace)

    async def condition(self, name: str, of: str) -> Mapping[str, Any]:
        found = await self.client.get(INDEX_SERVINGS, name, namespace=self.namespace)
        generation = found["metadata"]["generation"]
        for one in found.get("status", {}).get("conditions", ()):
            if one["type"] == of and one["observedGeneration"] == generation:
                return dict(one)
        return {"status": "", "reason": "", "message": ""}

    async def until(self, name: str, reason: str, of: str = "Ready") -> str:
        """Wait for the reason of a condition; returns its message."""
        message = ""

        async def holds() -> bool:
            nonlocal message
            one = await self.condition(name, of)
            message = one["message"]
            return bool(one["reason"] == reason)

        await until_in_cluster(holds, f"{of} of {name} is {reason}")
        return message

    async def pods(self, name: str) -> list[KubeObject]:
        listed = await self.client.list(
            PODS, namespace=self.namespace, label_selector=f"shashin.dev/serving={name}"
        )
        return list(listed.items)

    async def images(self, name: str) -> set[str]:
        return {
            pod["spec"]["containers"][0]["image"]
            for pod in await self.pods(name)
            if "deletionTimestamp" not in pod["metadata"]
        }

    async def is_gone(self, resource: Resource, name: str) -> bool:
        try:
            await self.client.get(resource, name, namespace=self.namespace)
        except KubernetesNotFound:
            return True
        return False

    async def until_gone(self, resource: Resource, name: str) -> None:
        what = f"{resource} {name} is gone"
        await until_in_cluster(lambda: self.is_gone(resource, name), what)

    async def delete(self, name: str) -> None:
        await self.client.delete(INDEX_SERVINGS, name, namespace=self.namespace)

    async def force(self, name: str) -> None:
        patch = {"metadata": {"annotations": {"shashin.dev/force-delete": "true"}}}
        await self.client.merge_patch(INDEX_SERVINGS, name, patch, namespace=self.namespace)


@pytest.fixture
async def servings(client: KubeClient, namespace: str) -> Servings:
    await apply_definitions(client)
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "index-server"}}
    await client.create(SERVICE_ACCOUNTS, account, namespace=namespace)
    await client.create(CONFIG_MAPS, config_map("shashin"), namespace=namespace)
    await client.create(LEASES, free_lease("shashin-controller"), namespace=namespace)
    return Servings(client, namespace)


class Controllers:
    """Controllers as processes."""

    def __init__(self, namespace: str, kubeconfig: Path, folder: Path) -> None:
        self._namespace, self._folder = namespace, folder
        self._kubeconfig = kubeconfig
        self.running: list[RunningService] = []

    async def start(self, kubeconfig: Path | None = None) -> RunningService:
        os.environ["KUBECONFIG"] = str(kubeconfig or self._kubeconfig)
        settings = {"namespace": self._namespace, "pre_stop_seconds": 0}
        one = RunningService("controller", "127.0.0.1:1", settings, log=self._folder)
        self.running.append(one)
        await one.start()
        await one.until_ready()
        return one


@pytest.fixture
async def controllers(
    namespace: str, kubeconfig: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Controllers]:
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    controllers = Controllers(namespace, kubeconfig, tmp_path)
    yield controllers
    for one in controllers.running:
        await one.kill()


async def test_a_serving_is_rolled_out_and_the_old_pods_stay_until_new_ones_are_ready(
    servings: Servings, controllers: Controllers, images: ProbeImages
) -> None:
    await controllers.start()
    await servings.apply("one", images.first, replicas=2)
    await servings.until("one", "RolledOut")
    assert len(await servings.pods("one")) == 2
    # An image that cannot be pulled, and one that crashes: the old pods go on serving.
    await servings.apply("one", images.missing, replicas=2)
    assert "pod one-" in await servings.until("one", "ImagePullFailed")
    await servings.apply("one", images.crashing, replicas=2)
    assert "exit code 1" in await servings.until("one", "Crashing")
    assert (await servings.condition("one", "Available"))["status"] == "True"
    assert images.first in await servings.images("one")
    await servings.apply("one", images.second, replicas=2)
    await servings.until("one", "RolledOut")
    assert await servings.images("one") == {images.second}
    events = await servings.client.list(EVENTS, namespace=servings.namespace)
    about = {e["reason"] for e in events.items if e["involvedObject"]["kind"] == "IndexServing"}
    assert {"RolledOut", "ImagePullFailed", "Crashing"} <= about


async def test_what_others_change_is_made_good(
    servings: Servings, controllers: Controllers, images: ProbeImages
) -> None:
    await controllers.start()
    await servings.apply("one", images.first)
    await servings.until("one", "RolledOut")
    space = servings.namespace
    patch = {"spec": {"template": {"spec": {"automountServiceAccountToken": True}}, "replicas": 0}}
    await servings.client.merge_patch(DEPLOYMENTS, "one", patch, namespace=space)
    for resource in (SERVICES, DISRUPTION_BUDGETS):
        await servings.client.delete(resource, "one", namespace=space)

    async def healed() -> bool:
        if await servings.is_gone(SERVICES, "one"):
            return False
        if await servings.is_gone(DISRUPTION_BUDGETS, "one"):
            return False
        spec = (await servings.client.get(DEPLOYMENTS, "one", namespace=space))["spec"]
        pod = spec["template"]["spec"]
        return spec["replicas"] == 1 and pod["automountServiceAccountToken"] is False

    await until_in_cluster(healed, "it is healed")
    await servings.until("one", "RolledOut")


async def test_the_only_serving_of_its_rows_is_deleted_by_force_alone(
    servings: Servings, controllers: Controllers, images: ProbeImages
) -> None:
    await controllers.start()
    await servings.apply("one", images.first)
    await servings.until("one", "RolledOut")
    await servings.until("one", "OnlyOne", of="Redundant")
    with pytest.raises(KubernetesForbidden, match="the only one to serve its rows"):
        await servings.delete("one")
    # Another one for the same shards is named, and makes either of them redundant.
    await servings.apply("other", images.second)
    await servings.until("one", "SharesShards", of="Duplicate")
    await servings.until("one", "ServedElsewhere", of="Redundant")
    await servings.delete("one")
    await servings.until_gone(DEPLOYMENTS, "one")
    await servings.until("other", "OnlyOne", of="Redundant")
    await servings.force("other")
    await servings.delete("other")
    for resource in (DEPLOYMENTS, SERVICES, DISRUPTION_BUDGETS):
        await servings.until_gone(resource, "other")


async def test_what_never_served_can_be_deleted(
    servings: Servings, controllers: Controllers, images: ProbeImages
) -> None:
    await controllers.start()
    await servings.apply("one", images.missing)
    await servings.until("one", "ImagePullFailed")
    await servings.until("one", "NeverServed", of="Redundant")
    await servings.delete("one")
    await servings.until_gone(INDEX_SERVINGS, "one")


async def test_a_document_that_cannot_be_used_is_named_and_its_pods_go_on(
    servings: Servings, controllers: Controllers, images: ProbeImages
) -> None:
    await controllers.start()
    await servings.apply("one", images.first)
    await servings.until("one", "RolledOut")
    (shard,) = DOCUMENT["spec"]["shards"]
    await servings.apply("one", images.second, shards=[shard, shard])
    assert "listed more than once" in await servings.until("one", "Invalid")
    assert await servings.images("one") == {images.first}
    await servings.apply("one", images.second)
    await servings.until("one", "RolledOut")


Faulty = tuple[FaultyApi, Path]


@pytest.fixture
async def faulty(kubeconfig: Path, tmp_path: Path) -> AsyncIterator[Faulty]:
    """A proxy that can be made to answer with errors, and its kubeconfig."""
    async with faulty_api(kubeconfig, tmp_path) as found:
        yield found


async def test_another_controller_takes_over_from_one_that_was_killed(
    servings: Servings, controllers: Controllers, images: ProbeImages
) -> None:
    first = await controllers.start()
    await until_in_cluster(lambda: leads(first), "it leads")
    second = await controllers.start()
    await servings.apply("one", images.first)
    await servings.until("one", "RolledOut")
    assert not await leads(second)
    await first.kill()
    await servings.apply("one", images.second)
    await servings.until("one", "RolledOut")
    assert await leads(second)


async def healed(one: RunningService) -> bool:
    return "made to fail" not in (await one.get("healthz") or "made to fail")


async def leads(one: RunningService) -> bool:
    page = await one.get("metrics") or ""
    return "shashin_controller_leading 1.0" in page


async def test_an_api_server_that_was_away_loses_nothing(
    servings: Servings,
    controllers: Controllers,
    images: ProbeImages,
    proxy: ApiProxy,
    tmp_path: Path,
) -> None:
    one = await controllers.start(tmp_path / "through-the-proxy.yaml")
    await servings.apply("one", images.first)
    await servings.until("one", "RolledOut")
    for outage in (proxy.refuse, proxy.hang):
        outage()
        image = images.second if outage == proxy.refuse else images.first
        await servings.apply("one", image)

        async def degraded() -> bool:
            return "Kubernetes" in (await one.get("healthz") or "") or not await leads(one)

        await until_in_cluster(degraded, "the outage is noticed")
        assert (await one.get("livez")) is not None
        proxy.come_back()
        await servings.until("one", "RolledOut")
        assert await servings.images("one") == {image}


async def test_an_api_server_that_answers_with_errors_is_asked_again(
    servings: Servings, controllers: Controllers, images: ProbeImages, faulty: Faulty
) -> None:
    api, through = faulty
    one = await controllers.start(through)
    await servings.apply("one", images.first)
    await servings.until("one", "RolledOut")
    api.faulty = True
    for image in (images.second, images.first, images.second):
        await servings.apply("one", image)
        await servings.until("one", "RolledOut")
        assert await servings.images("one") == {image}

    assert any(method == "PATCH" for method, _ in api.failed), "writes were among them"
    page = await one.probe("metrics")
    for code in (409, 410, 429, 500):
        assert f'status="{code}"' in page
    api.faulty = False
    await until_in_cluster(lambda: healed(one), "no error is named any more")
    await servings.apply("one", images.first)
    await servings.until("one", "RolledOut")


async def test_the_api_server_refuses_what_the_controller_would(
    servings: Servings, images: ProbeImages
) -> None:
    tag = images.first.partition("@")[0] + ":1"
    for image, spec in (
        (tag, {}),
        (images.first, {"tier": "weekly"}),
        (images.first, {"replicas": -1}),
    ):
        with pytest.raises(KubernetesError):
            await servings.apply("one", image, **spec)
