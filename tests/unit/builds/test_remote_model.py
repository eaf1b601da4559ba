"""Photos of a re-index that the embedder embeds, by its real server."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager

import grpc
import numpy as np
import pytest
from PIL import Image

from services.embedder.batching import BatchedModel
from services.embedder.handlers import EmbedServicer
from services.embedder.query_decoder import QueryDecoder, QueryLimits
from shashin.builds.reindex.models import BuildEmbeddingSettings, LocalModel, RemoteModel
from shashin.errors import ModelError, StepFailed
from shashin.local.ports import HOST, free_port
from shashin.model.loading import load_embedder
from shashin.model_space import ModelSpace
from shashin.rpc.server import grpc_server
from shashin.v1 import embed_pb2_grpc
from tests.support.loops import loop_scope

SPACE = ModelSpace("demo-v1", 128)


def photo(number: int) -> bytes:
    blocks = np.random.default_rng(number).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    data = io.BytesIO()
    Image.fromarray(blocks).resize((64, 48)).save(data, "JPEG")
    return data.getvalue()


@asynccontextmanager
async def embedder(port: int, *, photos: int = 64) -> AsyncIterator[None]:
    """Serve demo-v1 as the embedder does; it takes so many photos at once."""
    stopping = asyncio.Event()
    limits = QueryLimits(decoders=1, photos=photos, photo_bytes=2**24, decode_bytes=2**26)
    async with AsyncExitStack() as stack:
        caller = stack.enter_context(ThreadPoolExecutor(1))
        model = BatchedModel(load_embedder("demo-v1"), caller, batch_photos=8)
        running = asyncio.ensure_future(model.run(loop_scope(stop=stopping)))
        servicer = EmbedServicer(model, stack.enter_context(QueryDecoder(limits)))

        def add(server: grpc.aio.Server) -> None:
            embed_pb2_grpc.add_EmbedServiceServicer_to_server(servicer, server)

        async with grpc_server(add, host=HOST, port=port, drain_seconds=1):
            yield
        stopping.set()
        await running


async def embedded(
    port: int, photos: Sequence[bytes], *, space: ModelSpace = SPACE, patience: float = 60.0
) -> list[np.ndarray | str]:
    model = RemoteModel(f"{HOST}:{port}", space, patience_seconds=patience)
    try:
        # In a thread, as the step calls it.
        return await asyncio.to_thread(model.embed, photos)
    finally:
        model.close()


async def test_photos_get_the_vectors_that_the_model_gives_them_in_their_order() -> None:
    photos = [photo(number) for number in range(70)]
    port = free_port()
    async with embedder(port):
        found = await embedded(port, photos)
    local = LocalModel(BuildEmbeddingSettings(), SPACE).embed(photos)
    assert len(found) == 70
    np.testing.assert_allclose(np.array(found), np.array(local), atol=1e-5)


async def test_a_photo_that_cannot_be_used_is_named_and_costs_no_other_one() -> None:
    photos = [photo(0), b"no photo", photo(2)]
    port = free_port()
    async with embedder(port):
        found = await embedded(port, photos)
    assert [isinstance(one, str) for one in found] == [False, True, False]
    assert str(found[1]).startswith("PhotoUndecodable: ")


async def test_an_embedder_that_is_away_is_waited_for() -> None:
    port = free_port()
    waiting = asyncio.ensure_future(embedded(port, [photo(0)]))
    async with embedder(port):
        (vector,) = await waiting
    assert isinstance(vector, np.ndarray)


async def test_an_embedder_that_is_always_overloaded_or_away_fails_the_step_by_name() -> None:
    port = free_port()
    with pytest.raises(ModelError, match=f"{HOST}:{port}: UNAVAILABLE: "):
        await embedded(port, [photo(0)], patience=0.0)
    async with embedder(port, photos=1):
        with pytest.raises(ModelError, match="EmbedderOverloaded: "):
            await embedded(port, [photo(0), photo(1)], patience=0.0)


async def test_embedders_of_another_model_are_refused() -> None:
    port = free_port()
    other = ModelSpace("demo-v2", 128)
    async with embedder(port):
        with pytest.raises(
            StepFailed, match=r"is of demo-v1 .*; the build is of demo-v2 .*EMBEDDER"
        ):
            await embedded(port, [photo(0)], space=other)
