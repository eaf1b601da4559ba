"""Starts the embedder: ``python -m services.embedder``."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, ExitStack
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import grpc
from PIL import Image

from services.embedder.batching import BatchedModel
from services.embedder.handlers import EmbedServicer, EmbedStage
from services.embedder.model_fetch import fetch_model
from services.embedder.query_decoder import QueryDecoder
from services.embedder.settings import SERVER, WORKER, EmbedderSettings, parse_roles
from shashin.kafka.consume import StageConsumer, Subscription
from shashin.kafka.groups import embedder_group
from shashin.kafka.producer import Producer
from shashin.kafka.topics import IMAGES_DOWNLOADED, VECTORS_EMBEDDED
from shashin.model.embedder import PhotoEmbedder
from shashin.model.loading import load_embedder, load_published
from shashin.model_space import ModelSpace
from shashin.photos import SHORT_SIDE
from shashin.rpc.server import grpc_server
from shashin.runtime.scope import Loop, ServiceScope
from shashin.runtime.service import run_service
from shashin.v1 import embed_pb2_grpc


async def serve(scope: ServiceScope[EmbedderSettings]) -> None:
    """Run the embedder until SIGTERM."""
    settings = scope.settings
    roles = parse_roles(settings.roles)
    scope.health.ready_when_degraded = SERVER in roles
    async with AsyncExitStack() as stack:
        caller = stack.enter_context(ThreadPoolExecutor(1, thread_name_prefix="model"))
        loaded = await _loaded(scope, caller)
        scope.log.info("model loaded", model=loaded.model_id, dimensions=loaded.dimensions)
        model = BatchedModel(loaded, caller, batch_photos=settings.batch_photos)
        loops: list[Loop] = []
        # The model runs until its users have drained.
        calls = Loop("model calls", model.run)
        async with scope.background(calls), AsyncExitStack() as users:
            if WORKER in roles:
                loops.append(await _worker(scope, model, users))
            if SERVER in roles:
                zooms = settings.zooms_with(model_zooms=loaded.zooms)
                await _server(scope, model, users, zooms=zooms)
            await scope.run(*loops)


async def _loaded(
    scope: ServiceScope[EmbedderSettings], caller: ThreadPoolExecutor
) -> PhotoEmbedder:
    """Load the model in the thread that calls it, with its checkpoint from wherever it is."""
    settings = scope.settings
    with ExitStack() as stack:
        load = partial(load_embedder, settings.model, threads=settings.torch_threads)
        if settings.published_model is not None:
            folder = settings.model_folder or Path(
                stack.enter_context(TemporaryDirectory(prefix="shashin-model-"))
            )
            model, path = await fetch_model(
                scope.start, settings.repository, settings.published_model, folder
            )
            space = ModelSpace(model.model_id, model.dimensions)
            load = partial(load_published, path, space, threads=settings.torch_threads)
        scope.start.not_ready("loading the model")
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(caller, _load, settings, load)


def _load(settings: EmbedderSettings, load: Callable[[], PhotoEmbedder]) -> PhotoEmbedder:
    model = load()
    # Warm up: a model's first call is slow, and no query should wait for it.
    blank = Image.new("RGB", (SHORT_SIDE, SHORT_SIDE), "white")
    for count in (1, settings.batch_photos):
        model.embed([blank] * count)
    return model


async def _worker(
    scope: ServiceScope[EmbedderSettings],
    model: BatchedModel,
    stack: AsyncExitStack,
) -> Loop:
    settings = scope.settings
    decoder = stack.enter_context(ThreadPoolExecutor(1, thread_name_prefix="decode"))
    producer = await scope.start.retry(
        f"kafka at {settings.kafka}",
        lambda: stack.enter_async_context(Producer(settings.kafka, client_id="embedder")),
    )
    consumer = StageConsumer(
        EmbedStage(model, decoder),
        Subscription(
            settings.kafka,
            IMAGES_DOWNLOADED,
            embedder_group(model.model_id),
            settings.batch_records,
            on_lost_records=settings.on_lost_records,
            writes=(VECTORS_EMBEDDED,),
        ),
        producer,
        settings.dead_letter_policy(),
    )
    return consumer.loop()


async def _server(
    scope: ServiceScope[EmbedderSettings],
    model: BatchedModel,
    stack: AsyncExitStack,
    *,
    zooms: bool,
) -> None:
    settings = scope.settings
    decoder = stack.enter_context(QueryDecoder(settings.query_limits()))
    servicer = EmbedServicer(model, decoder, mirrors=settings.mirror_queries, zooms=zooms)

    def add(server: grpc.aio.Server) -> None:
        embed_pb2_grpc.add_EmbedServiceServicer_to_server(servicer, server)

    port = await stack.enter_async_context(
        grpc_server(
            add,
            host=settings.grpc_host,
            port=settings.grpc_port,
            drain_seconds=settings.drain_seconds,
        )
    )
    scope.log.info("serving", grpc_port=port)


if __name__ == "__main__":
    run_service("embedder", EmbedderSettings, serve)
