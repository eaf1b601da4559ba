"""Starts the indexer: ``python -m services.indexer``."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import replace

import grpc

from services.indexer.hidden_store import HiddenStore
from services.indexer.horizon_watch import HorizonWatch
from services.indexer.live_start import BesideActiveModel
from services.indexer.live_tier import LiveTier
from services.indexer.log_watch import LogWatch
from services.indexer.recovery import Recovery, Starts
from services.indexer.release import Release
from services.indexer.sealing import Sealer
from services.indexer.settings import IndexerSettings
from services.indexer.tail import Tail
from services.indexer.unreadable import UnreadableManifests
from shashin.discovery.open import open_discovery
from shashin.errors import WrongTopicSettings
from shashin.kafka.groups import indexer_group
from shashin.kafka.log_reader import LogReader
from shashin.kafka.producer import Producer
from shashin.kafka.topic_admin import check_topics
from shashin.kafka.topics import (
    DEAD_LETTER_SUFFIX,
    INDEXES_SEALED,
    LISTINGS_HIDDEN,
    VECTORS_EMBEDDED,
)
from shashin.objectstore.open import opened_object_store
from shashin.offsets.coverage import LiveReport
from shashin.offsets.log_position import LogPosition
from shashin.offsets.progress import PipelineProgress
from shashin.repository.given_up import GivenUpOffsets
from shashin.repository.hidden_snapshots import HiddenSnapshots
from shashin.repository.horizons import Horizons
from shashin.repository.quantizers import Quantizers
from shashin.repository.repository import ModelRepository
from shashin.rpc.server import grpc_server
from shashin.runtime.disk import watch_disk
from shashin.runtime.failpoints import failpoint
from shashin.runtime.scope import ServiceScope
from shashin.runtime.service import run_service
from shashin.runtime.work_folder import WorkFolder
from shashin.serving.catch_up import bounds_of
from shashin.serving.endpoint import IndexEndpoint
from shashin.serving.hidden_follower import HiddenFollower
from shashin.serving.hidden_listings import LogBounds
from shashin.serving.index_servers import IndexServers
from shashin.serving.recall_monitor import RecallMonitor, Sample
from shashin.serving.served_shards import ServedShards
from shashin.shards.open_shard import OpenShard
from shashin.shards.shard import Shard
from shashin.tiers import LIVE
from shashin.v1 import index_pb2_grpc

_TOPICS = (VECTORS_EMBEDDED, VECTORS_EMBEDDED + DEAD_LETTER_SUFFIX, INDEXES_SEALED)
"""Read or written, besides ``listings.hidden``, which its follower checks."""


async def serve(scope: ServiceScope[IndexerSettings]) -> None:
    """Run the indexer until SIGTERM."""
    settings = scope.settings
    scope.health.ready_when_degraded = True
    work = WorkFolder(settings.work_folder)
    watch_disk("work", work.path)
    work.clear()
    kept = _kept_folder(settings)
    hidden = HiddenStore(settings.work_folder / "hidden" if kept is None else kept.path)
    served = ServedShards()
    live = LiveTier(settings, served, hidden)
    follower = HiddenFollower(
        served,
        hidden,
        bootstrap=settings.kafka,
        client_id="indexer",
        superseded_after_seconds=settings.hide_superseded_after_seconds,
    )
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(opened_object_store(settings.repository))
        repository = ModelRepository(store)
        snapshots = HiddenSnapshots(store)
        if kept is not None:
            stack.callback(kept.close)

        def threads(count: int, name: str) -> ThreadPoolExecutor:
            return stack.enter_context(ThreadPoolExecutor(count, thread_name_prefix=name))

        producer, reader = await scope.start.retry(
            f"kafka at {settings.kafka}", lambda: _connect(settings, stack)
        )
        await scope.start.retry(
            "settings of topics",
            lambda: check_topics(settings.kafka, _TOPICS),
            also=(WrongTopicSettings,),
        )
        horizons = Horizons(store, settings.model_id)
        starts = Starts(reader, horizons, BesideActiveModel(settings, store))
        # Before the first row is added or adopted: whether it is hidden depends on it.
        bounds = await scope.start.retry(
            f"the store of {LISTINGS_HIDDEN}", lambda: _open_store(settings, hidden)
        )
        stack.callback(hidden.close)
        given_up = GivenUpOffsets(store, settings.model_id)
        recovery = Recovery(
            settings, repository, snapshots, hidden, bounds, reader, starts, given_up
        )
        unreadable = await recovery.run(live, scope.start)

        async def committed(shard: OpenShard) -> None:
            live.held.mark_committed(shard.shard_id)
            failpoint("before-offset-commit")
            await reader.commit(live.sealed_up_to())

        def hidden_applied() -> LogPosition:
            # Until the follower reads on, masks reflect what the store had when it was opened.
            return follower.applied if follower.applied.offsets else hidden.position

        sealer = Sealer(
            settings,
            work,
            repository,
            Quantizers(store, settings.model_id),
            snapshots,
            producer,
            threads(1, "seal"),
            committed,
            hidden_applied,
        )
        tail = Tail(settings, live, reader, starts, producer, sealer, threads(1, "index-writer"))
        watch = LogWatch(settings, live.next_offsets)
        discovery = open_discovery(settings.discovery)
        stack.push_async_callback(discovery.close)
        servers = IndexServers(discovery, settings.model_id)
        stack.push_async_callback(servers.close)

        def report(shards: Sequence[Shard]) -> LiveReport:
            if not watch.ends.partitions:
                # Before the end of the log is known, no coverage can be judged.
                return LiveReport()
            return LiveReport(
                positions=live.positions(shards, watch.ends.searchable_up_to()),
                partitions=watch.ends.partitions,
                end_unknown_seconds=watch.ends.unknown_seconds(),
                stages=watch.lags(),
            )

        def progress() -> PipelineProgress:
            return replace(
                watch.progress(),
                searchable_events=tail.events.count,
                searchable_event_seconds=tail.events.seconds,
            )

        sample = Sample()
        endpoint = IndexEndpoint(
            served,
            space=settings.space,
            tier=LIVE,
            executor=threads(2, "search"),
            sample=sample,
            report=report,
            progress=progress,
        )
        monitor = RecallMonitor(served, sample, tier=LIVE, share=settings.recall_cpu_share)

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
        scope.log.info("serving", grpc_port=port)
        await scope.run(
            follower.loop(),
            tail.loop(),
            tail.opener(),
            *watch.loops(),
            sealer.loop(),
            UnreadableManifests(repository, unreadable).loop(),
            HorizonWatch(live, horizons).loop(),
            Release(live, servers, settings.release_after_seconds).loop(),
            servers.discovery_watch(),
            *monitor.loops(),
        )


def _kept_folder(settings: IndexerSettings) -> WorkFolder | None:
    """Return the folder for the hidden listings, if they have one of their own."""
    if settings.hidden_folder is None:
        return None
    kept = WorkFolder(settings.hidden_folder, variable="SHASHIN_HIDDEN_FOLDER")
    watch_disk("hidden", kept.path)
    return kept


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
                group=indexer_group(settings.model_id),
            )
        )
        await reader.partitions()
        stack.push_async_exit(connected.pop_all())
    return producer, reader


async def _open_store(settings: IndexerSettings, hidden: HiddenStore) -> LogBounds:
    async with LogReader(settings.kafka, LISTINGS_HIDDEN, client_id="indexer") as reader:
        bounds = await bounds_of(reader)
    await asyncio.to_thread(hidden.open_at, bounds)
    return bounds


if __name__ == "__main__":
    run_service("indexer", IndexerSettings, serve)
