"""Discovery from the EndpointSlices of a Kubernetes namespace.

The slices are watched in the background, from the first call on. While the API server is away, the
last known endpoints stay, and ``problem`` says so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from shashin.discovery.endpoint_slices import (
    ACTIVE_MODEL_CONFIG_MAP,
    ROLE_LABEL,
    active_model_config_map,
    active_model_in,
    endpoints_in,
)
from shashin.discovery.protocol import Endpoint
from shashin.errors import KubernetesUnavailable, UserError
from shashin.kube.client import KubeClient
from shashin.kube.reflector import Reflector, Subscription, WatchTimes
from shashin.kube.resource import OWN_NAMESPACE
from shashin.kube.resources import CONFIG_MAPS, ENDPOINT_SLICES
from shashin.model_space import ModelSpace
from shashin.runtime.health import Health
from shashin.runtime.logging import get_logger
from shashin.runtime.scope import Loop, LoopScope

ACTIVE_MODEL_MANAGER = "shashin-active-model"
"""Owns the ConfigMap's data."""

_FIRST_LIST_SECONDS = 5.0
"""A call waits for so long until the endpoints are known, then raises."""

log = get_logger(__name__)


class KubernetesDiscovery:
    """Follows one namespace."""

    def __init__(
        self,
        namespace: str = OWN_NAMESPACE,
        *,
        open_client: Callable[[], KubeClient] = KubeClient.from_environment,
        times: WatchTimes | None = None,
    ) -> None:
        self._namespace = namespace
        self._open_client = open_client
        self._times = times
        self._followed: _Followed | None = None

    async def endpoints(self) -> list[Endpoint]:
        """Return the endpoints; waits until they are known.

        Raises:
            KubernetesError: if they were never known, and are not within seconds.
            UserError: if there are no credentials.
        """
        followed = self._follow()
        await followed.known(followed.slices)
        return followed.endpoints()

    async def active_model(self) -> ModelSpace | None:
        """Return the model of the ConfigMap, the last good one if it is invalid, None without one.

        The ConfigMap is optional, so that it cannot be read is no error, but a ``problem``.
        """
        followed = self._follow()
        await followed.known_or_problem(followed.config_map)
        return followed.active_model()

    async def set_active_model(self, space: ModelSpace) -> None:
        """Write the ConfigMap that names the active model; every router follows.

        Raises:
            KubernetesError: when it cannot be written.
        """
        client = self._open_client()
        try:
            await client.apply(
                CONFIG_MAPS,
                active_model_config_map(space),
                manager=ACTIVE_MODEL_MANAGER,
                namespace=self._namespace,
            )
        finally:
            await client.close()

    @property
    def problem(self) -> str | None:
        """Return why endpoints or model may be out of date."""
        return None if self._followed is None else self._followed.problem()

    async def close(self) -> None:
        """End the watches and close the connections."""
        followed, self._followed = self._followed, None
        if followed is not None:
            await followed.close()

    def _follow(self) -> _Followed:
        # Not in the constructor, which does no I/O and may have no event loop.
        if self._followed is None:
            self._followed = _Followed(self._open_client(), self._namespace, self._times)
        return self._followed


class _Followed:
    """The reflectors of one discovery, and what follows from their objects."""

    def __init__(self, client: KubeClient, namespace: str, times: WatchTimes | None) -> None:
        self._client = client
        self.slices = Reflector(
            client, ENDPOINT_SLICES, namespace=namespace, label_selector=ROLE_LABEL, times=times
        )
        self.config_map = Reflector(
            client,
            CONFIG_MAPS,
            namespace=namespace,
            field_selector=f"metadata.name={ACTIVE_MODEL_CONFIG_MAP}",
            times=times,
        )
        self._slices_changed = self.slices.subscribe()
        self._config_map_changed = self.config_map.subscribe()
        self._endpoints: list[Endpoint] = []
        self._slice_problems: tuple[str, ...] = ()
        self._active: ModelSpace | None = None
        self._active_problem: str | None = None
        self._stop = asyncio.Event()
        self._health = Health()
        self._running = {
            reflector: asyncio.ensure_future(self._run(reflector.loop()))
            for reflector in (self.slices, self.config_map)
        }

    async def _run(self, loop: Loop) -> None:
        registered = self._health.register(loop.name, ready_when=loop.ready_when)
        await loop.run(LoopScope(registered, self._stop))

    async def known(self, reflector: Reflector) -> None:
        """Wait until a reflector's objects are known.

        Raises:
            KubernetesUnavailable: if they are not within seconds, with the problem.
        """
        await self._wait(reflector, lambda: reflector.synced)
        if not reflector.synced:
            raise KubernetesUnavailable(
                reflector.problem
                or f"{reflector.name}: no response within {_FIRST_LIST_SECONDS:.0f} s"
            )

    async def known_or_problem(self, reflector: Reflector) -> None:
        """Wait until a reflector's objects are known, or it is known why they are not."""
        await self._wait(reflector, lambda: reflector.synced or reflector.problem is not None)

    async def _wait(self, reflector: Reflector, until: Callable[[], bool]) -> None:
        running = self._running[reflector]
        subscription = reflector.subscribe()
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(_FIRST_LIST_SECONDS):
                    while not until() and not running.done():
                        woken = asyncio.ensure_future(subscription.changed.wait())
                        try:
                            await asyncio.wait(
                                [woken, running], return_when=asyncio.FIRST_COMPLETED
                            )
                        finally:
                            woken.cancel()
                        subscription.take()
        finally:
            reflector.unsubscribe(subscription)
        if running.done():
            # Only an error of this program ends it: raises that.
            running.result()

    def endpoints(self) -> list[Endpoint]:
        """Return what the slices say now."""
        if _take(self._slices_changed):
            found = endpoints_in(self.slices.objects.values())
            self._endpoints = list(found.endpoints)
            problems = tuple(found.problems)
            for problem in problems:
                if problem not in self._slice_problems:
                    log.warning("left out of discovery", problem=problem)
            self._slice_problems = problems
        return self._endpoints

    def active_model(self) -> ModelSpace | None:
        """Return what the ConfigMap says now."""
        if _take(self._config_map_changed):
            self._active_problem = None
            found = list(self.config_map.objects.values())
            try:
                self._active = active_model_in(found[0]) if found else None
            except UserError as error:
                self._active_problem = error.message
                log.warning("keeping the last active model", problem=error.message)
        return self._active

    def problem(self) -> str | None:
        """Return everything that is wrong, in one line."""
        problems = [
            self.slices.problem,
            self.config_map.problem,
            *self._slice_problems,
            self._active_problem,
        ]
        return "; ".join(filter(None, problems)) or None

    async def close(self) -> None:
        """Stop the reflectors."""
        self._stop.set()
        for task in self._running.values():
            task.cancel()
        await asyncio.gather(*self._running.values(), return_exceptions=True)
        await self._client.close()


def _take(subscription: Subscription) -> bool:
    if not subscription.changed.is_set():
        return False
    subscription.take()
    return True
