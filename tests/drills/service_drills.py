"""Faults of single services with a Kafka or an API server of their own, one for each alert that they cause."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

from shashin.discovery.protocol import INDEXER
from shashin.kafka.producer import OutRecord, Producer
from shashin.kafka.topics import LISTINGS_EVENTS
from shashin.objectstore.open import open_object_store
from shashin.repository.repository import ModelRepository
from shashin.tiers import LIVE
from tests.drills.alert_watch import AlertWatch
from tests.drills.scene import repeated
from tests.drills.wrong_index import pointer_to, sealed, with_wrong_codes
from tests.support.certificates import Certificates
from tests.support.damaged_log import flip
from tests.support.deleted_records import delete_before
from tests.support.embedded_listings import DIMENSIONS, MODEL, IndexClient, vector_of
from tests.support.running_service import RunningService
from tests.support.shashin_command import shashin
from tests.support.small_disk import mounted_disk
from tests.support.waiting import until

_DISK_KIBIBYTES = 4096


@dataclass(frozen=True)
class World:
    """What a drill of a single service has."""

    folder: Path
    """An empty one."""
    kafka: str
    """Bootstrap servers, with new topics."""
    log_folder: Path
    """Where the broker keeps the log, a folder per partition."""
    stack: AsyncExitStack
    """Is left after the drill."""

    async def start(self, name: str, **settings: object) -> RunningService:
        """Start a service and wait until it is ready."""
        service = RunningService(name, self.kafka, settings, log=self.folder / "logs")
        self.stack.push_async_callback(service.close)
        await service.start()
        await service.until_ready()
        return service

    async def downloader(self, **settings: object) -> RunningService:
        """Start a downloader."""
        roots = f'["{self.folder}"]'
        return await self.start("downloader", photo_roots=roots, **settings)

    async def write(self, *values: bytes) -> None:
        """Write events to the first partition."""
        records = [OutRecord(LISTINGS_EVENTS, b"drill", value, partition=0) for value in values]
        async with Producer(self.kafka, client_id="test") as producer:
            await producer.send_all(records)


Fault = Callable[[AlertWatch], AbstractAsyncContextManager[None]]


@dataclass(frozen=True)
class Scene:
    """What is watched, and what may happen to it."""

    service: RunningService
    fault: Fault
    """Causes the fault when it is entered, and ends it when it is left."""


@dataclass(frozen=True)
class ServiceDrill:
    """How an alert is caused with a single service."""

    scene: Callable[[World], AbstractAsyncContextManager[Scene]]
    says: str
    """A pattern that is found in what the alert says: it names the thing."""
    factor: float = 60.0
    """Durations are divided by it."""


@asynccontextmanager
async def a_batch_is_damaged(world: World) -> AsyncIterator[Scene]:
    """A batch of records is damaged on the broker's disk; in the end it is skipped by command."""
    service = await world.downloader()

    @asynccontextmanager
    async def fault(_alerts: AlertWatch) -> AsyncIterator[None]:
        await service.kill()
        await world.write(b"damaged")
        flip(world.log_folder / f"{LISTINGS_EVENTS}-0", b"damaged")
        await service.start()
        yield
        await shashin(
            "dlq",
            "skip",
            f"{LISTINGS_EVENTS}:0:0",
            state=world.folder / "state",
            env={"SHASHIN_KAFKA": world.kafka},
        )

    yield Scene(service, fault)


@asynccontextmanager
async def records_are_deleted_unread(world: World) -> AsyncIterator[Scene]:
    """Retention deletes records while the consumer does not run, and it was told to go on."""
    service = await world.downloader(on_lost_records="continue")

    async def processed() -> bool:
        return await service.metric("shashin_consumed_records_total") >= 1

    @asynccontextmanager
    async def fault(_alerts: AlertWatch) -> AsyncIterator[None]:
        await world.write(b"read")
        await until(processed, "a record is processed")
        # It commits what it has processed.
        await service.stop()
        await world.write(*[b"unread"] * 12)
        await delete_before(world.kafka, LISTINGS_EVENTS, 10)
        await service.start()
        yield

    yield Scene(service, fault)


@asynccontextmanager
async def a_disk_fills_up(world: World) -> AsyncIterator[Scene]:
    """Something else fills the disk that the cache of photos is on."""
    disk = world.stack.enter_context(mounted_disk(world.folder / "disk", kibibytes=_DISK_KIBIBYTES))
    service = await world.downloader(cache_folder=disk)

    @asynccontextmanager
    async def fault(_alerts: AlertWatch) -> AsyncIterator[None]:
        other = disk / "something-else"
        await asyncio.to_thread(other.write_bytes, bytes(int(_DISK_KIBIBYTES * 1024 * 0.95)))
        yield
        other.unlink()

    yield Scene(service, fault)


@asynccontextmanager
async def a_certificate_is_about_to_expire(world: World) -> AsyncIterator[Scene]:
    """The router's certificate is not renewed as it should be."""
    certificates = Certificates(world.folder / "certificates")
    chain, key = certificates.issue("router", until=_in(days=90))
    discovery = world.folder / "discovery.json"
    discovery.write_text(json.dumps({"endpoints": []}))
    settings = {"model_id": MODEL, "dimensions": DIMENSIONS, "discovery": discovery.as_uri()}
    repository = (world.folder / "repository").as_uri()
    work = world.folder / "work"
    indexer = await world.start("indexer", **settings, repository=repository, work_folder=work)
    endpoint = {"name": "indexer", "role": INDEXER, "tier": LIVE, "address": indexer.grpc}
    discovery.write_text(json.dumps({"endpoints": [endpoint]}))
    tls = {"tls_certificate_file": chain, "tls_key_file": key, "renew_seconds": 0.5}
    service = await world.start("router", **settings, **tls)

    @asynccontextmanager
    async def fault(_alerts: AlertWatch) -> AsyncIterator[None]:
        certificates.issue("router", until=_in(days=3))
        yield
        certificates.issue("router", until=_in(days=90))

    yield Scene(service, fault)


def _in(*, days: float) -> datetime:
    return datetime.now(UTC) + timedelta(days=days)


@asynccontextmanager
async def an_index_is_wrong(world: World) -> AsyncIterator[Scene]:
    """A faulty builder stored a shard whose index has the codes of other rows."""
    folder = world.folder / "repository"
    repository = ModelRepository(open_object_store(folder.as_uri()))
    good = await sealed(repository, world.folder, 0)
    wrong = with_wrong_codes(folder, await sealed(repository, world.folder, 1))
    version = await repository.move_pointer(pointer_to(good), over=None)
    service = await world.start(
        "index_server",
        model_id=MODEL,
        dimensions=DIMENSIONS,
        repository=folder.as_uri(),
        work_folder=world.folder / "server",
        recall_cpu_share=0.5,
    )
    client = await world.stack.enter_async_context(IndexClient(service.grpc))
    numbers = count()

    async def search() -> None:
        await client.nearest(vector_of(f"query {next(numbers)}"), k=10)

    await world.stack.enter_async_context(repeated(search, every_seconds=0.02))

    @asynccontextmanager
    async def fault(_alerts: AlertWatch) -> AsyncIterator[None]:
        moved = await repository.move_pointer(pointer_to(wrong), over=version)
        yield
        await repository.move_pointer(pointer_to(good), over=moved)

    yield Scene(service, fault)


SERVICE_DRILLS = {
    "ShashinRecallLow": ServiceDrill(
        an_index_is_wrong,
        r"searches of the hourly tier find \d+(\.\d+)?% of the nearest 10",
        factor=240,
    ),
    "ShashinBatchHeldBack": ServiceDrill(
        a_batch_is_damaged, r"1 partitions of listings\.events wait"
    ),
    "ShashinRecordsLost": ServiceDrill(
        records_are_deleted_unread, r"(9|10) records of listings\.events were deleted", factor=240
    ),
    "ShashinCertificateExpires": ServiceDrill(
        a_certificate_is_about_to_expire,
        r"the certificate of router at 127\.0\.0\.1:\d+ expires in 2d 23h",
    ),
    "ShashinDiskAlmostFull": ServiceDrill(
        a_disk_fills_up, r"the disk of the cache folder of 127\.0\.0\.1:\d+ is \d(\.\d+)?% free"
    ),
}
