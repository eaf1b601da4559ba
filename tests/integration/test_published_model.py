"""An embedder that loads its model from the model repository, as a real process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from shashin.model.loading import load_embedder
from shashin.objectstore.open import opened_object_store
from shashin.photos import DecodeBudget, thumbnail_image
from shashin.repository.published_models import PublishedModels, checkpoint_key
from shashin.shards.format.file_entry import file_entry
from shashin.v1 import embed_pb2, embed_pb2_grpc
from tests.support.rendered_listings import rendered
from tests.support.running_service import RunningService
from tests.support.seaweed import BUCKET, SeaweedFs
from tests.support.second_model import DIMENSIONS, MODEL, save_second_model
from tests.support.waiting import until

StartEmbedder = Callable[..., Coroutine[Any, Any, RunningService]]


@pytest.fixture
async def start_embedder(tmp_path: Path) -> AsyncIterator[StartEmbedder]:
    """Start an embedder of a published model for queries, which needs no Kafka."""
    started: list[RunningService] = []

    async def start(repository: str, **settings: object) -> RunningService:
        values = {
            "model": f"repository:{MODEL}",
            "repository": repository,
            "roles": "server",
            **settings,
        }
        embedder = RunningService("embedder", "127.0.0.1:1", values, log=tmp_path / "logs")
        started.append(embedder)
        await embedder.start()
        return embedder

    yield start
    await asyncio.gather(*(embedder.close() for embedder in started))


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "half.pt"
    save_second_model(path)
    return path


@pytest.fixture
def repository(tmp_path: Path) -> str:
    return (tmp_path / "repository").as_uri()


async def embedded(embedder: RunningService, photo: bytes) -> embed_pb2.EmbedResponse:
    async with grpc.aio.insecure_channel(embedder.grpc) as channel:
        stub = embed_pb2_grpc.EmbedServiceStub(channel)
        answer: embed_pb2.EmbedResponse = await stub.Embed(
            embed_pb2.EmbedRequest(photos=[photo]), timeout=60
        )
        return answer


async def test_an_embedder_waits_for_a_repository_that_is_away_and_then_loads_the_model_from_it(
    start_embedder: StartEmbedder,
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seaweed, uri = SeaweedFs(tmp_path / "seaweed"), f"s3://{BUCKET}/shashin"
    for name, value in seaweed.environment.items():
        monkeypatch.setenv(name, value)
    try:
        await seaweed.start()
        async with opened_object_store(uri) as store:
            await PublishedModels(store).publish(checkpoint, MODEL, DIMENSIONS)
        await seaweed.kill()
        embedder = await start_embedder(uri, model_folder=tmp_path / "models")

        async def says_why() -> bool:
            said = await embedder.probe("readyz")
            return f"fetching model {MODEL} from {uri}: object " in said

        await until(says_why, "the embedder says why it is not ready")
        assert await embedder.get("livez") is not None
        await seaweed.start()
        await embedder.until_ready()
    finally:
        await seaweed.kill()
    photo = rendered(5000, photos=1).photos[0]
    answer = await embedded(embedder, photo)
    assert (answer.model_id, answer.dimensions) == (MODEL, DIMENSIONS)
    (kept,) = (tmp_path / "models" / MODEL).iterdir()
    assert file_entry(kept).sha256 == file_entry(checkpoint).sha256
    expected = load_embedder(str(kept)).embed(
        [thumbnail_image(photo, budget=DecodeBudget(64 << 20))]
    )[0]
    assert np.frombuffer(answer.vectors, "<f4") @ expected > 0.999


async def test_an_embedder_does_not_start_with_a_model_that_it_cannot_trust(
    start_embedder: StartEmbedder, checkpoint: Path, repository: str
) -> None:
    key = checkpoint_key(MODEL)
    async with opened_object_store(repository) as store:
        await PublishedModels(store).publish(checkpoint, MODEL, DIMENSIONS)
        whole, _ = await store.read(key)
        await store.write(key, whole[:-100])
    embedder = await start_embedder(repository)
    assert await asyncio.to_thread(embedder.process.wait) == 1, embedder.log()
    assert '"reason": "CorruptModel"' in embedder.log()
    assert f"{key} is cut short: it has {len(whole) - 100} of {len(whole)} bytes" in embedder.log()
