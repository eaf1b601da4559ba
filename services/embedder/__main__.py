"""Starts the embedder: ``python -m services.embedder``."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from typing import Any

import grpc
from PIL import Image

from services.embedder.batching import BatchedModel
from services.embedder.handlers import EmbedServicer, EmbedStage
from services.embedder.settings import SERVER, WORKER, EmbedderSettings, parse_roles
from shashin.kafka.consume import consume
from shashin.kafka.producer import Producer
from shashin.kafka.retry import until_done
from shashin.kafka.topics import IMAGES_DOWNLOADED
from shashin.model.embedder import PhotoEmbedder
from shashin.model.loading import load_embedder
from shashin.photos import SHORT_SIDE
from shashin.rpc.server import grpc_server
from shashin.runtime.scope import Runtime, run_service
from shashin.v1 import embed_pb2_grpc

MODEL = "model"


async def serve(runtime: Runtime[EmbedderSettings]) -> None:
    """Run the embedder until SIGTERM."""
    settings, health, stopping = runtime.settings, runtime.health, runtime.stopping
    roles = parse_roles(settings.roles)
    health.require(MODEL, waiting_for="weights")
    health.serving = SERVER in roles
    async with AsyncExitStack() as stack:
        caller = stack.enter_context(ThreadPoolExecutor(1, thread_name_prefix="model"))
        decoders = stack.enter_context(ThreadPoolExecutor(1, thread_name_prefix="decode"))
        loaded = await asyncio.get_running_loop().run_in_executor(caller, _load, settings)
        health.set_ready(MODEL)
        runtime.log.info("model loaded", model=loaded.model_id, dimensions=loaded.dimensions)
        model = BatchedModel(
            loaded,
            caller,
            batch_photos=settings.batch_photos,
            waiting_queries=settings.waiting_photos,
        )
        # The model goes on until those who use it have drained.
        unused = asyncio.Event()
        calling = asyncio.ensure_future(model.run(unused))
        try:
            async with AsyncExitStack() as users:
                loops: list[Coroutine[Any, Any, None]] = [_until(stopping)]
                if WORKER in roles:
                    loops.append(await _worker(runtime, model, decoders, users))
                if SERVER in roles:
                    await _server(runtime, model, decoders, users)
                await runtime.run_until_stopped(*loops)
        finally:
            unused.set()
            await calling


def _load(settings: EmbedderSettings) -> PhotoEmbedder:
    model = load_embedder(settings.model, threads=settings.torch_threads)
    # The first call of a model is slow: it is not a query's.
    blank = Image.new("RGB", (SHORT_SIDE, SHORT_SIDE), "white")
    for count in (1, settings.batch_photos):
        model.embed([blank] * count)
    return model


async def _worker(
    runtime: Runtime[EmbedderSettings],
    model: BatchedModel,
    decoders: ThreadPoolExecutor,
    stack: AsyncExitStack,
) -> Coroutine[Any, Any, None]:
    settings, health, stopping = runtime.settings, runtime.health, runtime.stopping
    beat = health.heartbeat("start")
    producer = await until_done(
        f"connect to kafka at {settings.kafka}",
        lambda: stack.enter_async_context(Producer(settings.kafka, client_id="embedder")),
        stopping=stopping,
        beat=beat,
    )
    health.finished(beat)
    return consume(
        EmbedStage(model, decoders),
        bootstrap=settings.kafka,
        topic=IMAGES_DOWNLOADED,
        group=f"embedder.{model.model_id}",
        producer=producer,
        health=health,
        stopping=stopping,
        max_records=settings.batch_records,
        giving_up=settings.giving_up(),
    )


async def _server(
    runtime: Runtime[EmbedderSettings],
    model: BatchedModel,
    decoders: ThreadPoolExecutor,
    stack: AsyncExitStack,
) -> None:
    settings = runtime.settings
    servicer = EmbedServicer(model, decoders)

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
    runtime.log.info("serving", grpc_port=port)


async def _until(stopping: asyncio.Event) -> None:
    await stopping.wait()


if __name__ == "__main__":
    run_service("embedder", EmbedderSettings, serve)
