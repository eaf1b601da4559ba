"""Starts the controller: ``python -m services.controller``."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

from services.controller.build_job import OF_BUILDS
from services.controller.builds import BuildReconciler, BuildWorld
from services.controller.reconciling import Reconciling
from services.controller.serving_objects import OF_SERVINGS
from services.controller.servings import ServingReconciler, ServingWorld
from services.controller.settings import ControllerSettings
from shashin.kube.client import KubeClient
from shashin.kube.lease import LeaderElection
from shashin.kube.reflector import Reflector
from shashin.kube.resources import (
    DEPLOYMENTS,
    DISRUPTION_BUDGETS,
    INDEX_BUILDS,
    INDEX_SERVINGS,
    JOBS,
    PODS,
    SERVICES,
)
from shashin.kube.server_clock import clock_loop
from shashin.metrics import controller as metrics
from shashin.runtime.scope import Loop, LoopScope, ServiceScope
from shashin.runtime.service import run_service


async def serve(scope: ServiceScope[ControllerSettings]) -> None:
    """Run the controller until SIGTERM."""
    settings = scope.settings
    # An object that cannot be made is for an alert, and ends no process.
    scope.health.ready_when_degraded = True
    async with AsyncExitStack() as stack:
        client = KubeClient.from_environment()
        stack.push_async_callback(client.close)
        world = ServingWorld(
            servings=Reflector(client, INDEX_SERVINGS, namespace=settings.namespace),
            deployments=Reflector(
                client, DEPLOYMENTS, namespace=settings.namespace, label_selector=OF_SERVINGS
            ),
            services=Reflector(
                client, SERVICES, namespace=settings.namespace, label_selector=OF_SERVINGS
            ),
            budgets=Reflector(
                client, DISRUPTION_BUDGETS, namespace=settings.namespace, label_selector=OF_SERVINGS
            ),
            pods=Reflector(client, PODS, namespace=settings.namespace, label_selector=OF_SERVINGS),
        )
        servings = Reconciling(
            ServingReconciler(client, world, settings),
            world.servings,
            world.made,
            resync_seconds=settings.resync_seconds,
        )
        build_world = BuildWorld(
            builds=Reflector(client, INDEX_BUILDS, namespace=settings.namespace),
            jobs=Reflector(client, JOBS, namespace=settings.namespace, label_selector=OF_BUILDS),
            pods=Reflector(client, PODS, namespace=settings.namespace, label_selector=OF_BUILDS),
        )
        builds = Reconciling(
            BuildReconciler(client, build_world, settings),
            build_world.builds,
            build_world.made,
            resync_seconds=settings.resync_seconds,
        )
        election = LeaderElection(client, settings.lease, namespace=settings.namespace)

        async def lead(loop: LoopScope) -> None:
            async def work() -> None:
                metrics.LEADING.set(1)
                try:
                    async with asyncio.TaskGroup() as tasks:
                        tasks.create_task(servings.run(loop))
                        tasks.create_task(builds.run(loop))
                finally:
                    metrics.LEADING.set(0)

            await election.run(loop, work)

        await scope.run(
            *(reflector.loop() for reflector in (world.servings, *world.made)),
            *(reflector.loop() for reflector in (build_world.builds, *build_world.made)),
            Loop("leader election", lead),
            clock_loop(client),
        )


if __name__ == "__main__":
    run_service("controller", ControllerSettings, serve)
