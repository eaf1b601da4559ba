"""Starts the index server: ``python -m services.index_server``."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack

import grpc

from services.index_server.image_shards import ImageShards
from services.index_server.settings import IndexServerSettings
from services.index_server.swap import CONCURRENT_LOADS, ShardSwapper
from services.index_server.tier import TierFollower
from shashin.errors import SettingsError
from shashin.kafka.log_reader import LogReader
from shashin.kafka.topics import LISTINGS_HIDDEN
from shashin.objectstore.open import opened_object_store
from shashin.objectstore.protocol import ObjectStore
from shashin.repository.hidden_snapshots import HiddenSnapshots
from shashin.repository.repository import ModelRepository
from shashin.rpc.server import grpc_server
from shashin.runtime.disk import watch_disk
from shashin.runtime.scope import Loop, ServiceScope
from shashin.runtime.service import run_service
from shashin.runtime.work_folder import WorkFolder
from shashin.serving.catch_up import CatchUp
from shashin.serving.endpoint import IndexEndpoint
from shashin.serving.hidden_follower import HiddenFollower
from shashin.serving.hidden_listings import RecentlyHidden
from shashin.serving.recall_monitor import RecallMonitor, Sample
from shashin.serving.served_shards import ServedShards
from shashin.v1 import index_pb2_grpc


async def serve(scope: ServiceScope[IndexServerSettings]) -> None:
    """Run the index server until SIGTERM."""
    settings = scope.settings
    scope.health.ready_when_degraded = True
    served, recent = ServedShards(), RecentlyHidden()
    client_id = f"index-server-{settings.tier}"
    catch_up = CatchUp(
        served,
        recent,
        lambda: LogReader(settings.kafka, LISTINGS_HIDDEN, client_id=f"{client_id}-catch-up"),
        settings.on_lost_records,
    )
    hidden = HiddenFollower(
        served,
        recent,
        bootstrap=settings.kafka,
        client_id=client_id,
        superseded_after_seconds=settings.hide_superseded_after_seconds,
    )
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(opened_object_store(settings.repository))
        shards = _shards(settings, store, served, catch_up)
        workers = max(2, os.cpu_count() or 1)
        searchers = stack.enter_context(ThreadPoolExecutor(workers, thread_name_prefix="search"))
        sample = Sample()
        endpoint = IndexEndpoint(
            served,
            space=settings.space,
            tier=settings.tier,
            executor=searchers,
            sample=sample,
            workers=workers,
        )
        monitor = RecallMonitor(served, sample, tier=settings.tier, share=settings.recall_cpu_share)

        def add(server: grpc.aio.Server) -> None:
            index_pb2_grpc.add_IndexServiceServicer_to_server(endpoint, server)

        port = await stack.enter_async_context(
            grpc_server(
                add,
                host=settings.grpc_host,
                port=settings.grpc_port,
                drain_seconds=settings.drain_seconds,
            )
        )
        scope.log.info("serving", grpc_port=port, tier=settings.tier)
        await scope.run(hidden.loop(), shards, *monitor.loops())


def _shards(
    settings: IndexServerSettings, store: ObjectStore, served: ServedShards, catch_up: CatchUp
) -> Loop:
    """Return the loop that decides which shards are served: those of the image, or of the pointer."""
    swapper = ShardSwapper(
        settings.space,
        settings.tier,
        served,
        HiddenSnapshots(store),
        catch_up,
        concurrent_loads=1 if settings.shards_folder is None else CONCURRENT_LOADS,
    )
    if settings.shards_folder is not None:
        return ImageShards(settings.shards_folder, swapper).loop()
    if settings.work_folder is None:
        raise SettingsError(
            "SHASHIN_WORK_FOLDER is not set: expected it, to fetch the shards of the tier's pointer "
            "to, or SHASHIN_SHARDS_FOLDER, to serve the shards of an image"
        )
    work = WorkFolder(settings.work_folder)
    watch_disk("work", work.path)
    return TierFollower(settings, work, ModelRepository(store), swapper).loop()


if __name__ == "__main__":
    run_service("index-server", IndexServerSettings, serve)
