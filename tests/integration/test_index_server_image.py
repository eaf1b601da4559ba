"""Real index servers that serve the shards of a folder, as in an image."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from shashin.kafka.producer import Producer
from shashin.model_space import ModelSpace
from shashin.shards.format.manifest import ROWS_FILE, Manifest
from shashin.shards.format.row import NewRow, Row, RowAttributes
from shashin.shards.open_shard import OpenShard
from tests.support.embedded_listings import DIMENSIONS, MODEL, IndexClient, hidden, vector_of
from tests.support.hidden_map import HiddenMap
from tests.support.image_folder import lay_out
from tests.support.made_shards import BUCKET_START, KIND
from tests.support.running_service import RunningService
from tests.support.waiting import until

StartService = Callable[..., Awaitable[RunningService]]


def image_of(tmp_path: Path, *groups: tuple[str, ...]) -> list[Manifest]:
    """Lay out a shard for each group of listings."""
    shards, position = [], 0
    for listings in groups:
        shard = OpenShard(0, position, ModelSpace(MODEL, DIMENSIONS), KIND, HiddenMap())
        rows = [NewRow(Row(name, 1, 0, RowAttributes()), vector_of(name)) for name in listings]
        position += len(rows)
        shard.add(rows, position=position, bucket_start=BUCKET_START)
        shards.append(lay_out(shard, tmp_path / "indexes"))
    return shards


async def start_server(
    start_service: StartService, tmp_path: Path, **settings: object
) -> RunningService:
    return await start_service(
        "index_server",
        model_id=MODEL,
        dimensions=DIMENSIONS,
        repository=(tmp_path / "repository").as_uri(),
        shards_folder=tmp_path / "indexes",
        **settings,
    )


async def test_a_server_with_an_image_serves_its_shards_without_what_is_hidden(
    start_service: StartService, producer: Producer, tmp_path: Path
) -> None:
    image_of(tmp_path, ("lamp", "chair"), ("mug",))
    await producer.send_all([hidden("lamp", 2)])
    server = await start_server(start_service, tmp_path)
    async with IndexClient(server.grpc) as client:
        described = await client.describe()
        assert (described.tier, described.rows, len(described.shards)) == ("hourly", 3, 2)
        found = {listing for listing, _, _ in await client.nearest(vector_of("lamp"), k=3)}
        assert found == {"chair", "mug"}, "what was sold before it started is not found"
        await producer.send_all([hidden("mug", 2)])

        async def gone() -> bool:
            found = await client.nearest(vector_of("mug"), k=3)
            return {listing for listing, _, _ in found} == {"chair"}

        await until(gone, "what is sold later is not found either")
    assert not any((tmp_path / "repository").glob("serving/**/*")), "no pointer is needed"


async def test_a_server_with_a_damaged_shard_is_not_ready_and_says_why_until_it_is_whole(
    start_service: StartService, tmp_path: Path
) -> None:
    _, bad = image_of(tmp_path, ("lamp", "chair"), ("mug",))
    path = tmp_path / "indexes" / bad.shard_id / ROWS_FILE
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    server = await start_server(start_service, tmp_path, ready=False)
    reason = f"{path} has {len(whole) - 1} bytes"

    async def named() -> bool:
        return reason in await server.probe("healthz") and reason in await server.probe("readyz")

    await until(named, "it says why it is not ready")
    assert await server.get("readyz") is None
    assert await server.get("livez") is not None, "a restart would not help"
    assert reason in server.log()
    path.write_bytes(whole)
    await server.until_ready()


async def test_a_server_without_shards_to_serve_ends_with_code_2(
    start_service: StartService, tmp_path: Path
) -> None:
    (tmp_path / "indexes").mkdir()
    empty = await start_server(start_service, tmp_path, ready=False)
    neither = await start_service(
        "index_server", ready=False, repository=(tmp_path / "repository").as_uri()
    )
    for server, why in (
        (empty, "SHASHIN_SHARDS_FOLDER="),
        (neither, "SHASHIN_WORK_FOLDER is not set: expected it"),
    ):
        assert await asyncio.to_thread(server.process.wait, 60) == 2
        assert server.log().splitlines()[-1].startswith(f"index-server: {why}")
