"""Starts the router: ``python -m services.router``."""

from __future__ import annotations

from contextlib import AsyncExitStack, suppress

import grpc

from services.router.active import ActiveModel
from services.router.handlers import SearchHandlers
from services.router.settings import RouterSettings
from shashin.discovery.open import open_discovery
from shashin.errors import ShashinError
from shashin.rpc.server import grpc_server
from shashin.runtime.scope import ServiceScope
from shashin.runtime.service import run_service
from shashin.v1 import search_pb2_grpc


async def serve(scope: ServiceScope[RouterSettings]) -> None:
    """Run the router until SIGTERM."""
    settings = scope.settings
    scope.health.ready_when_degraded = True
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
        handlers = SearchHandlers(active)

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
        scope.log.info("serving", grpc_port=port, model_id=space.model_id)
        await scope.run(*active.loops())


if __name__ == "__main__":
    run_service("router", RouterSettings, serve)
