"""Where the indexer of a second model begins to read, over the real log."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path

import pytest

from shashin.kafka.groups import embedder_group
from shashin.kafka.log_reader import LogReader
from shashin.kafka.producer import Producer
from shashin.kafka.topic_admin import group_has_begun
from shashin.kafka.topics import IMAGES_DOWNLOADED
from shashin.model_space import ModelSpace
from shashin.objectstore.open import open_object_store
from shashin.objectstore.protocol import ObjectStore
from shashin.repository.active_model import ActiveModels
from shashin.repository.horizons import Horizons
from tests.support.embedded_listings import DIMENSIONS, MODEL, IndexClient, embedded
from tests.support.indexer_settings import indexer_settings
from tests.support.running_service import RunningService
from tests.support.waiting import until

StartService = Callable[..., Awaitable[RunningService]]
ACTIVE = "active-model"


@pytest.fixture
async def store(tmp_path: Path) -> ObjectStore:
    """A repository in which another model is active, since offset 0 of both partitions."""
    store = open_object_store((tmp_path / "repository").as_uri())
    await ActiveModels(store).activate_first(ModelSpace(ACTIVE, DIMENSIONS), at=1.0)
    for partition in (0, 1):
        await Horizons(store, ACTIVE).keep(partition, 0)
    return store


async def begun(store: ObjectStore) -> Mapping[int, tuple[int, int | None]]:
    horizons = await Horizons(store, MODEL).all()
    return {found.partition: (found.offset, found.live_from) for found in horizons}


async def test_it_begins_at_the_end_of_the_log_and_a_restart_changes_nothing(
    start_service: StartService, producer: Producer, store: ObjectStore, tmp_path: Path
) -> None:
    await producer.send_all([embedded(f"old-{n}", partition=n % 2, model=ACTIVE) for n in range(7)])
    indexer = await start_service("indexer", **indexer_settings(tmp_path))
    assert await begun(store) == {0: (0, 4), 1: (0, 3)}
    await producer.send_all([embedded("lamp", partition=0)])
    await indexer.kill()
    await producer.send_all([embedded("chair", partition=1)])
    await indexer.start()
    await indexer.until_ready()
    assert await begun(store) == {0: (0, 4), 1: (0, 3)}
    async with IndexClient(indexer.grpc) as client:
        for name in ("lamp", "chair"):
            await until(partial(client.finds, name), f"{name} is found")
        described = await client.describe()
    positions = {p.partition: (p.horizon_offset, p.live_offset) for p in described.positions}
    assert positions == {0: (0, 5), 1: (0, 4)}, "all since the horizon is required"
    covered = {(r.partition, r.from_offset) for s in described.shards for r in s.ranges}
    assert covered == {(0, 4), (1, 3)}, "builds have to bring the rest"


async def test_after_its_embedder_it_begins_at_the_first_record_of_the_model(
    start_service: StartService, producer: Producer, kafka: str, store: ObjectStore, tmp_path: Path
) -> None:
    await producer.send_all([embedded("old", partition=0, model=ACTIVE)])
    await producer.send_all([embedded("lamp", partition=0)])
    await producer.send_all([embedded("new", partition=p, model=ACTIVE) for p in (0, 1)])
    group = embedder_group(MODEL)
    assert not await group_has_begun(kafka, group)
    async with LogReader(kafka, IMAGES_DOWNLOADED, client_id="test", group=group) as reader:
        reader.start_at({0: 0})
        await reader.commit({0: 0})
    assert await group_has_begun(kafka, group)
    indexer = await start_service("indexer", **indexer_settings(tmp_path))
    assert await begun(store) == {0: (0, 1), 1: (0, 1)}
    async with IndexClient(indexer.grpc) as client:
        await until(lambda: client.finds("lamp"), "the lamp is found")


async def test_the_active_model_itself_reads_the_whole_log(
    start_service: StartService, producer: Producer, tmp_path: Path
) -> None:
    store = open_object_store((tmp_path / "repository").as_uri())
    await ActiveModels(store).activate_first(ModelSpace(MODEL, DIMENSIONS), at=1.0)
    await producer.send_all([embedded("lamp", partition=0)])
    indexer = await start_service("indexer", **indexer_settings(tmp_path))
    assert await begun(store) == {0: (0, None), 1: (0, None)}
    async with IndexClient(indexer.grpc) as client:
        await until(lambda: client.finds("lamp"), "the lamp is found")
