"""Starts the router: ``python -m services.router``."""

from __future__ import annotations

from contextlib import AsyncExitStack, suppress

import grpc

from services.router.active import ActiveModel
from services.router.concurrency_limit import ConcurrencyLimit
from services.router.front_door import FrontDoor
from services.router.gate import Gate
from services.router.handlers import SearchHandlers
from services.router.refusal_rate import RefusalRate
from services.router.renewal import Credentials
from services.router.rest.app import make_app
from services.router.rest.observed import Observed
from services.router.rest.server import http_server
from services.router.serving_report import ServingReport
from services.router.settings import RouterSettings
from services.router.wait_probe import WaitProbe
from shashin.access.keyring import Keyring
from shashin.discovery.open import open_discovery
from shashin.errors import ShashinError
from shashin.rpc.health_service import HealthService
from shashin.rpc.reflection import add_reflection
from shashin.rpc.server import grpc_server
from shashin.rpc.server_limits import ServerLimits
from shashin.runtime.scope import ServiceScope
from shashin.runtime.service import run_service
from shashin.thumbnails.reader import opened_thumbnails
from shashin.v1 import search_pb2_grpc

LEAST_WORK = 16.0
"""Queries that are always admitted at once: fewer would leave endpoints idle."""


async def serve(scope: ServiceScope[RouterSettings]) -> None:
    """Run the router until SIGTERM."""
    settings = scope.settings
    scope.health.ready_when_degraded = True
    credentials = Credentials(settings)
    async with AsyncExitStack() as stack:
        discovery = open_discovery(settings.discovery)
        stack.push_async_callback(discovery.close)
        space = settings.space
        with suppress(ShashinError):
            # So that no call uses the model of the settings after a switch; a failure is reported by
            # the loop that follows discovery.
            space = await discovery.active_model() or space
        active = ActiveModel(discovery, settings, space)
        stack.push_async_callback(active.close)
        gate = gate_of(settings, credentials.keyring)
        door = FrontDoor(SearchHandlers(active), gate, lambda: active.current.photo_vectors)
        health = HealthService(serving=False)
        loops = [
            *active.loops(),
            credentials.loop(),
            ServingReport(health, scope.health, active).loop(),
        ]
        if gate.rate is not None:
            loops.append(WaitProbe(gate, gate.rate).loop())

        def add(server: grpc.aio.Server) -> None:
            search_pb2_grpc.add_SearchServiceServicer_to_server(door, server)
            if settings.reflection:
                add_reflection(server, "shashin.v1.SearchService", "grpc.health.v1.Health")

        port = await stack.enter_async_context(
            grpc_server(
                add,
                host=settings.grpc_host,
                port=settings.grpc_port,
                drain_seconds=settings.drain_seconds,
                health=health,
                limits=limits_of(settings),
                certificates=credentials.certificates,
                guard=door.guard,
            )
        )
        thumbnails = None
        if settings.thumbnails:
            thumbnails = await stack.enter_async_context(
                opened_thumbnails(settings.thumbnails, cache_bytes=settings.thumbnail_cache_bytes)
            )
        rest_port = await stack.enter_async_context(
            http_server(
                Observed(make_app(active, gate, thumbnails=thumbnails, origins=settings.origins)),
                host=settings.rest_host,
                port=settings.rest_port,
                drain_seconds=settings.drain_seconds,
                context=None
                if credentials.certificates is None
                else credentials.certificates.context("http/1.1"),
            )
        )
        scope.log.info(
            "serving",
            grpc_port=port,
            rest_port=rest_port,
            model_id=space.model_id,
            tls=credentials.certificates is not None,
            api_keys=credentials.keyring is not None,
        )
        await scope.run(*loops)


def gate_of(settings: RouterSettings, keyring: Keyring | None) -> Gate:
    """Return what decides on calls."""
    if not settings.shed_load:
        return Gate(keyring, None, None)
    limit = ConcurrencyLimit(
        at_least=LEAST_WORK, at_most=settings.max_work, target_seconds=settings.shed_answer_seconds
    )
    return Gate(keyring, limit, RefusalRate(target_seconds=settings.shed_wait_seconds))


def limits_of(settings: RouterSettings) -> ServerLimits:
    """Return what clients may do."""
    return ServerLimits(
        request_bytes=settings.max_request_bytes,
        calls_per_connection=settings.calls_per_connection,
        idle_seconds=settings.connection_idle_seconds,
        connection_seconds=settings.connection_age_seconds,
    )


if __name__ == "__main__":
    run_service("router", RouterSettings, serve)
