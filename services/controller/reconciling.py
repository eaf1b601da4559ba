"""Calls a reconciler for each object that may need work: when something has changed, and in time.

Level-triggered: a reconciler is told a key, never what has happened, and makes what is there what
should be there. It may be called at any time, any number of times.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Protocol

from services.controller.work_queue import WorkQueue
from shashin.errors import KubernetesConflict, KubernetesUnavailable, ShashinError
from shashin.kube.reflector import Reflector, Subscription
from shashin.kube.resource import Key
from shashin.metrics import controller as metrics
from shashin.runtime.logging import get_logger
from shashin.runtime.scope import LoopScope

log = get_logger(__name__)


class Reconciler(Protocol):
    """Makes one object's world what its spec says."""

    name: str
    """Of the kind of objects, in logs and metrics."""

    async def reconcile(self, key: Key) -> float | None:
        """Look at an object, which may be gone; returns after how many seconds to look again, if at all.

        Raises:
            ShashinError: it is called again after a backoff.
        """
        ...


class Reconciling:
    """One reconciler with the reflectors whose objects it depends on.

    ``primary`` has the objects that it is called for. Any change in it or in ``others`` makes all of
    them due, since they depend on each other; reconcilers therefore write only what differs.
    """

    def __init__(
        self,
        reconciler: Reconciler,
        primary: Reflector,
        others: Sequence[Reflector],
        *,
        resync_seconds: float,
    ) -> None:
        self._reconciler = reconciler
        self._primary = primary
        self._others = others
        self._resync_seconds = resync_seconds
        self._failing: dict[Key, str] = {}

    async def run(self, loop: LoopScope) -> None:
        """Reconcile until cancelled."""
        queue = WorkQueue()
        with ExitStack() as stack:
            subscriptions = [self._subscribe(reflector, stack) for reflector in self._reflectors]
            next_resync = time.monotonic()
            while True:
                gone = self._take_changes(subscriptions, queue)
                if time.monotonic() >= next_resync:
                    queue.add(self._primary.objects.keys(), time.monotonic())
                    next_resync = time.monotonic() + self._resync_seconds
                for one in gone:
                    self._recovered(one, loop)
                if self._synced and (key := queue.take(time.monotonic())) is not None:
                    await self._reconcile(key, queue, loop)
                    continue
                wait = next_resync - time.monotonic()
                if self._synced and (left := queue.seconds_to_next(time.monotonic())) is not None:
                    wait = min(wait, left)
                await _any_changed(subscriptions, max(0.0, wait))

    @property
    def _reflectors(self) -> Sequence[Reflector]:
        return (self._primary, *self._others)

    @property
    def _synced(self) -> bool:
        # With half of the picture, objects that are there would be taken for missing ones.
        return all(reflector.synced for reflector in self._reflectors)

    def _subscribe(self, reflector: Reflector, stack: ExitStack) -> Subscription:
        subscription = reflector.subscribe()
        stack.callback(reflector.unsubscribe, subscription)
        return subscription

    def _take_changes(self, subscriptions: Sequence[Subscription], queue: WorkQueue) -> set[Key]:
        """Queue what may need work; returns failing keys whose objects are gone."""
        taken = [
            subscription.take() if subscription.changed.is_set() else frozenset()
            for subscription in subscriptions
        ]
        if any(taken):
            # Also those that are gone: the last one that goes leaves no other to be looked at for it.
            queue.add(self._primary.objects.keys() | taken[0], time.monotonic())
        return self._failing.keys() - self._primary.objects.keys()

    async def _reconcile(self, key: Key, queue: WorkQueue, loop: LoopScope) -> None:
        kind = self._reconciler.name
        try:
            with metrics.RECONCILE_SECONDS.labels(kind).time():
                again_after = await self._reconciler.reconcile(key)
        except KubernetesConflict as error:
            # Somebody else wrote at the same time; what they wrote is about to be seen.
            log.info("conflict: looking again", kind=kind, name=key[1], error=error.message)
            metrics.RECONCILES.labels(kind, "conflict").inc()
            queue.failed(key, time.monotonic())
        except ShashinError as error:
            metrics.RECONCILES.labels(kind, "failed").inc()
            self._failed(key, error, loop)
            asked = error.retry_after_seconds if isinstance(error, KubernetesUnavailable) else 0.0
            queue.failed(key, time.monotonic(), asked)
        else:
            metrics.RECONCILES.labels(kind, "ok").inc()
            self._recovered(key, loop)
            queue.succeeded(key, time.monotonic(), again_after)

    def _failed(self, key: Key, error: ShashinError, loop: LoopScope) -> None:
        if self._failing.get(key) != error.message:
            log.warning(
                "cannot reconcile: retrying",
                kind=self._reconciler.name,
                name=key[1],
                error=error.message,
            )
        self._failing[key] = error.message
        loop.degraded(self._part(key), error.message)

    def _recovered(self, key: Key, loop: LoopScope) -> None:
        if self._failing.pop(key, None) is not None:
            loop.clear(self._part(key))

    def _part(self, key: Key) -> str:
        return f"{self._reconciler.name} {key[1]}"


async def _any_changed(subscriptions: Sequence[Subscription], seconds: float) -> None:
    waits = [asyncio.ensure_future(one.changed.wait()) for one in subscriptions]
    try:
        await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for one in waits:
            one.cancel()
