"""The reflector against a real API server that is refused, hangs, is cut off and comes back."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from shashin.kube.client import KubeClient
from shashin.kube.reflector import Reflector, WatchTimes
from shashin.kube.resources import CONFIG_MAPS
from shashin.runtime.health import Health
from tests.support.api_proxy import ApiProxy
from tests.support.kube_objects import config_map
from tests.support.loops import running
from tests.support.waiting import until

OF_TEST = {"of": "test"}
QUICK = WatchTimes(
    server_seconds=1.0,
    silence_seconds=2.0,
    resync_seconds=300.0,
    shortest_seconds=0.2,
    longest_backoff_seconds=0.3,
)
PATIENT = WatchTimes(longest_backoff_seconds=0.3)


class Followed:
    """A reflector of the ConfigMaps of a test, which runs."""

    def __init__(self, client: KubeClient, namespace: str, times: WatchTimes) -> None:
        self.health = Health()
        self.reflector = Reflector(
            client, CONFIG_MAPS, namespace=namespace, label_selector="of=test", times=times
        )

    def data(self) -> dict[str, dict[str, str]]:
        """Return what it knows."""
        return {name: found["data"] for (_, name), found in self.reflector.objects.items()}

    async def knows(self, **expected: dict[str, str]) -> None:
        """Wait until it knows exactly this."""
        await until(lambda: self.data() == expected, f"the reflector knows {expected}")


@pytest.fixture(params=["watch ends often", "watch lasts"])
async def followed(
    request: pytest.FixtureRequest, through: KubeClient, namespace: str
) -> AsyncIterator[Followed]:
    """A running reflector behind the proxy."""
    times = QUICK if request.param == "watch ends often" else PATIENT
    followed = Followed(through, namespace, times)
    async with running(followed.reflector.loop(), health=followed.health):
        await until(lambda: followed.reflector.synced, "the first list")
        yield followed


class Maps:
    """Changes a namespace's ConfigMaps, past the proxy."""

    def __init__(self, client: KubeClient, namespace: str) -> None:
        self._client, self._namespace = client, namespace

    async def put(self, name: str, **data: str) -> None:
        """Create or change one."""
        await self._client.apply(
            CONFIG_MAPS,
            config_map(name, labels=OF_TEST, **data),
            manager="test",
            namespace=self._namespace,
        )

    async def delete(self, name: str) -> None:
        """Delete one."""
        await self._client.delete(CONFIG_MAPS, name, namespace=self._namespace)

    async def relabel(self, name: str) -> None:
        """Change one so that it no longer matches."""
        await self._client.merge_patch(
            CONFIG_MAPS, name, {"metadata": {"labels": {"of": None}}}, namespace=self._namespace
        )


@pytest.fixture
def maps(client: KubeClient, namespace: str) -> Maps:
    """The test's ConfigMaps."""
    return Maps(client, namespace)


async def test_every_change_is_followed(followed: Followed, maps: Maps) -> None:
    await maps.put("one", a="1")
    await maps.put("two", a="1")
    await followed.knows(one={"a": "1"}, two={"a": "1"})
    await maps.put("one", a="2")
    await followed.knows(one={"a": "2"}, two={"a": "1"})
    await maps.delete("two")
    await followed.knows(one={"a": "2"})
    await maps.relabel("one")
    await followed.knows()
    assert followed.health.problems() == []


async def test_a_subscriber_is_woken_and_told_what_to_look_at(
    followed: Followed, maps: Maps, namespace: str
) -> None:
    await maps.put("one", a="1")
    await followed.knows(one={"a": "1"})
    subscription = followed.reflector.subscribe()
    assert subscription.changed.is_set()
    assert subscription.take() == {(namespace, "one")}
    assert not subscription.changed.is_set()
    await maps.put("one", a="2")
    await subscription.changed.wait()
    assert subscription.take() == {(namespace, "one")}
    await maps.delete("one")
    await subscription.changed.wait()
    assert subscription.take() == {(namespace, "one")}
    assert followed.data() == {}


@pytest.mark.parametrize("outage", ["refuses", "hangs"])
async def test_the_last_known_set_stays_and_what_was_missed_is_found_afterwards(
    through: KubeClient, proxy: ApiProxy, namespace: str, maps: Maps, outage: str
) -> None:
    followed = Followed(through, namespace, QUICK)
    async with running(followed.reflector.loop(), health=followed.health):
        await maps.put("kept", a="1")
        await maps.put("changed", a="1")
        await maps.put("deleted", a="1")
        known = {name: {"a": "1"} for name in ("kept", "changed", "deleted")}
        await followed.knows(**known)
        if outage == "refuses":
            proxy.refuse()
        else:
            proxy.hang()
        await until(followed.health.problems, "the outage is on /healthz")
        assert followed.reflector.problem is not None
        assert "configmaps in namespace" in followed.reflector.problem
        assert followed.health.liveness_problems() == []
        await maps.put("changed", a="2")
        await maps.delete("deleted")
        await maps.put("new", a="1")
        assert followed.data() == known
        subscription = followed.reflector.subscribe()
        subscription.take()
        proxy.come_back()
        await followed.knows(kept={"a": "1"}, changed={"a": "2"}, new={"a": "1"})
        assert subscription.take() == {(namespace, n) for n in ("changed", "deleted", "new")}
        await until(lambda: not followed.health.problems(), "the recovery is on /healthz")
        assert followed.reflector.problem is None


async def test_an_object_that_was_recreated_during_an_outage_counts_as_changed(
    followed: Followed, proxy: ApiProxy, maps: Maps, namespace: str
) -> None:
    await maps.put("one", a="1")
    await followed.knows(one={"a": "1"})
    proxy.refuse()
    await until(lambda: followed.reflector.problem, "the outage is noticed")
    before = followed.reflector.objects[namespace, "one"]["metadata"]["uid"]
    await maps.delete("one")
    await maps.put("one", a="1")
    subscription = followed.reflector.subscribe()
    subscription.take()
    proxy.come_back()
    await until(
        lambda: followed.reflector.objects[namespace, "one"]["metadata"]["uid"] != before,
        "the new object is known",
    )
    assert subscription.take() == {(namespace, "one")}


async def test_connections_that_are_cut_again_and_again_lose_no_change(
    followed: Followed, proxy: ApiProxy, maps: Maps
) -> None:
    for number in range(20):
        await maps.put("one", a=str(number))
        if number % 3 == 2:
            proxy.cut_all()
    await followed.knows(one={"a": "19"})
    await maps.delete("one")
    proxy.cut_all()
    await followed.knows()


async def test_everything_is_listed_again_at_every_resync(
    through: KubeClient, namespace: str, maps: Maps
) -> None:
    followed = Followed(through, namespace, WatchTimes(resync_seconds=0.3))
    reflector = followed.reflector
    async with running(reflector.loop(), health=followed.health):
        await maps.put("one", a="1")
        await followed.knows(one={"a": "1"})
        # As if an event had been lost.
        reflector._cache._objects.clear()
        await followed.knows(one={"a": "1"})
        assert followed.health.problems() == []


async def test_a_start_without_an_api_server_waits_for_it(
    through: KubeClient, proxy: ApiProxy, namespace: str, maps: Maps
) -> None:
    proxy.refuse()
    await maps.put("one", a="1")
    followed = Followed(through, namespace, PATIENT)
    async with running(followed.reflector.loop(), health=followed.health):
        await until(lambda: followed.reflector.problem, "the outage is noticed")
        assert not followed.reflector.synced
        assert any("first list" in one for one in followed.health.readiness_problems())
        proxy.come_back()
        await followed.knows(one={"a": "1"})
        await until(lambda: not followed.health.readiness_problems(), "it is ready")
