"""Starts the router: ``python -m services.router``."""

from __future__ import annotations

from contextlib import AsyncExitStack

import grpc

from services.router.answer_coverage import KnownPositions
from services.router.embedding import Embedding
from services.router.endpoints import EndpointWatch
from services.router.handlers import SearchHandlers
from services.router.locate import Locator
from services.router.search import Searcher
from services.router.settings import RouterSettings
from shashin.discovery.open import open_discovery
from shashin.rpc.server import grpc_server
from shashin.runtime.scope import ServiceScope
from shashin.runtime.service import run_service
from shashin.serving.fleet import Fleet
from shashin.v1 import search_pb2_grpc


async def serve(scope: ServiceScope[RouterSettings]) -> None:
    """Run the router until SIGTERM."""
    settings = scope.settings
    scope.health.ready_when_degraded = True
    positions = KnownPositions()
    async with AsyncExitStack() as stack:
        discovery = open_discovery(settings.discovery)
        stack.push_async_callback(discovery.close)
        fleet = Fleet(settings.model_id)
        stack.push_async_callback(fleet.close)
        watch = EndpointWatch(
            discovery,
            fleet,
            positions,
            space=settings.space,
            discovery_seconds=settings.discovery_seconds,
            describe_seconds=settings.describe_seconds,
        )
        handlers = SearchHandlers(
            Searcher(
                fleet,
                positions,
                Embedding(fleet, settings.space),
                space=settings.space,
                deadline_ms=settings.deadline_ms,
            ),
            Locator(
                fleet,
                space=settings.space,
                deadline_ms=settings.deadline_ms,
            ),
            watch,
            model_id=settings.model_id,
        )

        def add(server: grpc.aio.Server) -> None:
            search_pb2_grpc.add_SearchServiceServicer_to_server(handlers, server)

        port = await stack.enter_async_context(
            grpc_server(
                add,
                host=settings.grpc_host,
                port=settings.grpc_port,
                drain_seconds=settings.drain_seconds,
            )
        )
        scope.log.info("serving", grpc_port=port, model_id=settings.model_id)
        await scope.run(*watch.loops())


if __name__ == "__main__":
    run_service("router", RouterSettings, serve)
