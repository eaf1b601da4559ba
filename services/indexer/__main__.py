"""Starts the indexer: ``python -m services.indexer``."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack

import grpc

from services.indexer.live_tier import LiveTier
from services.indexer.release import IndexServers
from services.indexer.sealing import Sealer
from services.indexer.settings import IndexerSettings
from shashin.discovery.open import open_discovery
from shashin.kafka.log_reader import LogReader
from shashin.kafka.producer import Producer
from shashin.kafka.retry import until_done
from shashin.kafka.topics import VECTORS_EMBEDDED
from shashin.objectstore.open import open_object_store
from shashin.repository.repository import ModelRepository
from shashin.rpc.server import grpc_server
from shashin.runtime.scope import Runtime, run_service
from shashin.serving.endpoint import IndexEndpoint
from shashin.serving.hidden_follower import CONDITION, follow_hidden
from shashin.serving.served_shards import ServedShards
from shashin.shards.visibility import HiddenMap
from shashin.tiers import LIVE
from shashin.v1 import index_pb2_grpc


async def serve(runtime: Runtime[IndexerSettings]) -> None:
    """Run the indexer until SIGTERM."""
    settings, health, stopping = runtime.settings, runtime.health, runtime.stopping
    repository = ModelRepository(open_object_store(settings.repository))
    shutil.rmtree(settings.work_folder, ignore_errors=True)
    settings.work_folder.mkdir(parents=True)
    served = ServedShards(HiddenMap())
    health.require(CONDITION)
    health.serving = True
    async with AsyncExitStack() as stack:
        searchers = stack.enter_context(ThreadPoolExecutor(2, thread_name_prefix="search"))
        sealers = stack.enter_context(ThreadPoolExecutor(1, thread_name_prefix="seal"))
        beat = health.heartbeat("start")
        producer, reader = await until_done(
            f"connect to kafka at {settings.kafka}",
            lambda: _connect(settings, stack),
            stopping=stopping,
            beat=beat,
        )
        sealer = Sealer(
            repository,
            producer,
            model_id=settings.model_id,
            bucket_seconds=settings.bucket_seconds,
            work_folder=settings.work_folder,
            executor=sealers,
            stopping=stopping,
        )
        live = LiveTier(settings, served, repository, reader, producer, sealer, health, stopping)
        stack.callback(live.close)
        await until_done("recover from manifests", live.recover, stopping=stopping, beat=beat)
        health.finished(beat)
        discovery = open_discovery(settings.discovery)
        stack.push_async_callback(discovery.close)
        servers = IndexServers(discovery, settings.model_id)
        stack.push_async_callback(servers.close)
        endpoint = IndexEndpoint(
            served,
            space=settings.space,
            tier=LIVE,
            executor=searchers,
            positions=live.positions,
        )

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
        runtime.log.info("serving", grpc_port=port)
        await runtime.run_until_stopped(
            follow_hidden(
                served,
                bootstrap=settings.kafka,
                client_id="indexer",
                health=health,
                stopping=stopping,
            ),
            live.follow(),
            live.seal(),
            live.release(servers),
        )


async def _connect(settings: IndexerSettings, stack: AsyncExitStack) -> tuple[Producer, LogReader]:
    async with AsyncExitStack() as connected:
        producer = await connected.enter_async_context(
            Producer(settings.kafka, client_id="indexer")
        )
        reader = await connected.enter_async_context(
            LogReader(
                settings.kafka,
                VECTORS_EMBEDDED,
                client_id="indexer",
                group=f"indexer.{settings.model_id}",
            )
        )
        await reader.partitions()
        stack.push_async_exit(connected.pop_all())
    return producer, reader


if __name__ == "__main__":
    run_service("indexer", IndexerSettings, serve)
