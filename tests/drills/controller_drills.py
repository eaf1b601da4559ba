"""Faults of a controller, which runs against an API server that stores objects; one for each alert.

Each fault is a context: it is caused when the context is entered, and ended when it is left.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shashin.kube.client import KubeClient
from shashin.kube.credentials import KubeconfigCredentials
from shashin.kube.resource import Resource
from shashin.kube.resources import INDEX_BUILDS, INDEX_SERVINGS
from shashin.local.ports import free_port
from tests.support import made_builds, serving_documents
from tests.support.running_service import RunningService
from tests.support.storing_api_server import NAMESPACE, StoringApiServer

_AHEAD_SECONDS = 90


@dataclass
class ControllerScene:
    """A controller and its API server."""

    folder: Path
    api: StoringApiServer
    kubeconfig: Path
    stack: AsyncExitStack
    port: int = field(default_factory=free_port)
    controller: RunningService | None = None

    async def start(self, *, clock_ahead_seconds: float = 0.0) -> RunningService:
        """Start the controller, in place of one that runs."""
        if self.controller is not None:
            await self.controller.stop()
        self.controller = RunningService(
            "controller",
            "127.0.0.1:1",
            {"http_port": self.port, "namespace": NAMESPACE},
            log=self.folder / "logs",
            clock_ahead_seconds=clock_ahead_seconds,
        )
        self.stack.push_async_callback(self.controller.close)
        await self.controller.start()
        await self.controller.until_ready()
        return self.controller

    @asynccontextmanager
    async def created(self, resource: Resource, made: dict[str, Any]) -> AsyncIterator[None]:
        """There is an object."""
        client = KubeClient(KubeconfigCredentials(str(self.kubeconfig)))
        try:
            await client.create(resource, made)
            yield
            await client.delete(resource, made["metadata"]["name"])
        finally:
            await client.close()


@dataclass(frozen=True)
class ControllerDrill:
    """How an alert is caused with a controller."""

    fault: Callable[[ControllerScene], AbstractAsyncContextManager[None]]
    says: str
    """A pattern that is found in what the alert says: it names the thing."""


@asynccontextmanager
async def a_build_is_invalid(scene: ControllerScene) -> AsyncIterator[None]:
    """Somebody creates a build with a step that has neither an image nor a command."""
    pipeline = [*made_builds.BUILT_IN, {"name": "check"}]
    async with scene.created(INDEX_BUILDS, made_builds.changed(pipeline=pipeline)):
        yield


@asynccontextmanager
async def a_serving_is_invalid(scene: ControllerScene) -> AsyncIterator[None]:
    """Somebody creates a serving whose image has no digest."""
    serving = serving_documents.changed("spec.image", "registry.example/shashin/index:latest")
    async with scene.created(INDEX_SERVINGS, serving):
        yield


@asynccontextmanager
async def the_lease_is_refused(scene: ControllerScene) -> AsyncIterator[None]:
    """The controller may not write its lease any more."""
    scene.api.refused.add("leases")
    yield
    scene.api.refused.clear()


@asynccontextmanager
async def the_clock_is_ahead(scene: ControllerScene) -> AsyncIterator[None]:
    """The controller runs on a machine whose clock is ahead."""
    await scene.start(clock_ahead_seconds=_AHEAD_SECONDS)
    yield
    await scene.start()


CONTROLLER_DRILLS = {
    "ShashinBuildsFailed": ControllerDrill(
        a_build_is_invalid, r"1 builds of the daily tier have failed"
    ),
    "ShashinServingNotReady": ControllerDrill(
        a_serving_is_invalid, r"1 servings of the daily tier cannot be rolled out: Invalid"
    ),
    "ShashinNoController": ControllerDrill(
        the_lease_is_refused, r"0 controllers work, expected one"
    ),
    "ShashinClockSkew": ControllerDrill(
        the_clock_is_ahead,
        r"the clock of controller at 127\.0\.0\.1:\d+ is 1m (29|30|31)(\.\d+)?s off",
    ),
}
