"""Keeps a copy of a resource's objects: lists them, then watches what changes.

Changes are level-triggered. A subscriber is woken and told which keys to look at, and looks at the
objects as they are then; how often, and in which steps, they changed before does not matter. So a
delete that happened while nothing was watched is found by the next list, like any other difference.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from shashin.errors import KubernetesUnavailable, ShashinError
from shashin.kube.cache import ObjectCache
from shashin.kube.client import KubeClient
from shashin.kube.resource import OWN_NAMESPACE, Key, KubeObject, Resource, version_of
from shashin.runtime.backoff import backoff_seconds
from shashin.runtime.logging import get_logger
from shashin.runtime.scope import Loop, LoopScope

log = get_logger(__name__)


@dataclass(frozen=True)
class WatchTimes:
    """When a reflector stops to trust a watch."""

    server_seconds: float = 240.0
    """After these the server ends a watch, and the next one goes on from there."""
    silence_seconds: float = 150.0
    """Without a byte for so long, a connection counts as hanging; bookmarks come every minute."""
    resync_seconds: float = 300.0
    """After these everything is listed again."""
    shortest_seconds: float = 1.0
    """A watch that ends sooner without an event is a failure, so that it is not repeated at once."""
    longest_backoff_seconds: float = 30.0

    @property
    def total_seconds(self) -> float:
        """After these the client ends a watch that the server did not end."""
        return self.server_seconds + 30.0


class Subscription:
    """What one subscriber has not looked at yet."""

    def __init__(self) -> None:
        self.changed = asyncio.Event()
        """Set while there is something to take."""
        self._keys: set[Key] = set()

    def take(self) -> frozenset[Key]:
        """Return the keys that were added, changed or deleted since the last call."""
        keys, self._keys = frozenset(self._keys), set()
        self.changed.clear()
        return keys

    def add(self, keys: set[Key], *, wake: bool = False) -> None:
        """Add keys, and wake the subscriber if there are any; ``wake`` does so without any."""
        self._keys |= keys
        if keys or wake:
            self.changed.set()


class Reflector:
    """The objects of a resource, in one namespace or in all of them."""

    def __init__(
        self,
        client: KubeClient,
        resource: Resource,
        *,
        namespace: str | None = OWN_NAMESPACE,
        label_selector: str = "",
        field_selector: str = "",
        times: WatchTimes | None = None,
    ) -> None:
        self._client = client
        self._resource = resource
        self._namespace = namespace
        self._label_selector, self._field_selector = label_selector, field_selector
        self._times = times or WatchTimes()
        self._cache = ObjectCache()
        self._subscriptions: list[Subscription] = []
        self._backoff = self._new_backoff()
        self.synced = False
        """Whether the objects were ever complete."""
        self.problem: str | None = None
        """Why the objects may be out of date; None while they are watched."""

    @property
    def objects(self) -> Mapping[Key, KubeObject]:
        """The last known objects, which stay when the API server is away. Never change them."""
        return self._cache.objects

    @property
    def name(self) -> str:
        """What it follows."""
        return f"{self._resource} of Kubernetes"

    def subscribe(self) -> Subscription:
        """Return a new subscription, with all objects that are known already.

        It is also woken when the first list is there, even an empty one, and by a problem.
        """
        subscription = Subscription()
        subscription.add(set(self.objects), wake=self.synced)
        self._subscriptions.append(subscription)
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        """Forget a subscription."""
        self._subscriptions.remove(subscription)

    def loop(self) -> Loop:
        """Return the loop; ready once all objects are known."""
        return Loop(f"follower of {self.name}", self.run, ready_when="the first list")

    async def run(self, loop: LoopScope) -> None:
        """Follow the objects until the loop must stop."""
        while loop.next_turn():
            following = asyncio.ensure_future(self._follow(loop))
            ended = asyncio.Event()
            following.add_done_callback(lambda _, ended=ended: ended.set())  # type: ignore[misc]
            try:
                await loop.wait(ended, self._times.resync_seconds)
            finally:
                following.cancel()
                await asyncio.wait([following])
            if following.cancelled() or (error := following.exception()) is None:
                continue
            if not isinstance(error, ShashinError):
                raise error
            self._report(loop, error)
            asked = error.retry_after_seconds if isinstance(error, KubernetesUnavailable) else 0.0
            await loop.sleep(max(next(self._backoff), asked))

    async def _follow(self, loop: LoopScope) -> None:
        """List, then watch until something fails."""
        listed = await self._client.list(
            self._resource,
            namespace=self._namespace,
            label_selector=self._label_selector,
            field_selector=self._field_selector,
        )
        changed, first = self._cache.replace(listed.items), not self.synced
        self.synced = True
        self._wake(changed, wake=first)
        loop.ready()
        version = listed.resource_version
        while True:
            version = await self._watch(loop, version)

    async def _watch(self, loop: LoopScope, version: str) -> str:
        """Watch until the server ends the watch; returns the version to go on from."""
        since, events = time.monotonic(), 0
        async with self._client.watch(
            self._resource,
            version,
            namespace=self._namespace,
            server_seconds=self._times.server_seconds,
            silence_seconds=self._times.silence_seconds,
            total_seconds=self._times.total_seconds,
            label_selector=self._label_selector,
            field_selector=self._field_selector,
        ) as watched:
            self._recovered(loop)
            async for event in watched:
                events += 1
                version = version_of(event.object) or version
                self._wake(self._cache.apply(event.kind, event.object))
                self._backoff = self._new_backoff()
        if not events and time.monotonic() - since < self._times.shortest_seconds:
            raise KubernetesUnavailable(f"the watch of {self.name} ended at once")
        self._backoff = self._new_backoff()
        return version

    def _wake(self, changed: set[Key], *, wake: bool = False) -> None:
        for subscription in self._subscriptions:
            subscription.add(changed, wake=wake)

    def _report(self, loop: LoopScope, error: ShashinError) -> None:
        self.problem = error.message
        self._wake(set(), wake=True)
        loop.degraded(self.name, error.message)
        log.warning(
            "cannot follow Kubernetes: keeping the last known objects",
            resource=str(self._resource),
            objects=len(self.objects),
            error=error.message,
        )

    def _recovered(self, loop: LoopScope) -> None:
        if self.problem is not None:
            log.info("following Kubernetes again", resource=str(self._resource))
        self.problem = None
        loop.clear(self.name)

    def _new_backoff(self) -> Iterator[float]:
        return backoff_seconds(longest=self._times.longest_backoff_seconds)
