"""Starts the canary: ``python -m services.canary``."""

from __future__ import annotations

from contextlib import AsyncExitStack

from services.canary.handlers import Canary
from services.canary.settings import CanarySettings
from shashin.kafka.producer import Producer
from shashin.objectstore.open import opened_object_store
from shashin.rpc.router_access import open_router_channel
from shashin.runtime.scope import ServiceScope
from shashin.runtime.service import run_service
from shashin.v1 import search_pb2_grpc


async def serve(scope: ServiceScope[CanarySettings]) -> None:
    """Run the canary until SIGTERM."""
    settings = scope.settings
    # What it reports is the state of others: restarting it would not help.
    scope.health.ready_when_degraded = True
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(opened_object_store(settings.photos))
        channel = await stack.enter_async_context(open_router_channel(settings.router, settings))
        producer = await scope.start.retry(
            f"kafka at {settings.kafka}",
            lambda: stack.enter_async_context(Producer(settings.kafka, client_id="canary")),
        )
        search = search_pb2_grpc.SearchServiceStub(channel)
        await scope.run(Canary(settings, producer, search, store).loop())


if __name__ == "__main__":
    run_service("canary", CanarySettings, serve)
