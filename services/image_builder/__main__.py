"""Starts the image builder: ``python -m services.image_builder``."""

from __future__ import annotations

import asyncio

from faststream import AckPolicy
from faststream.kafka import KafkaBroker

from services.image_builder.handlers import Builder
from services.image_builder.rollout import PointerRollout
from services.image_builder.settings import ImageBuilderSettings
from shashin.kafka.retry import backoff_seconds
from shashin.kafka.topics import INDEXES_SEALED
from shashin.objectstore.open import open_object_store
from shashin.repository.repository import ModelRepository
from shashin.runtime.scope import Runtime, run_service, sleep_unless


async def serve(runtime: Runtime[ImageBuilderSettings]) -> None:
    """Run the image builder until SIGTERM."""
    settings = runtime.settings
    repository = ModelRepository(open_object_store(settings.repository))
    builder = Builder(
        settings, repository, PointerRollout(repository), runtime.health, runtime.stopping
    )
    await runtime.run_until_stopped(builder.run(), _wake_on_news(runtime, builder))


async def _wake_on_news(runtime: Runtime[ImageBuilderSettings], builder: Builder) -> None:
    """Wake the builder for each record of indexes.sealed.

    FastStream's defaults do here, since a lost record costs at most ``resync_seconds``: without a
    group every builder sees every record from now on, nothing is committed, and the repository is
    read again whatever the record says.
    """
    broker = KafkaBroker(runtime.settings.kafka, client_id="image-builder", logger=None)

    @broker.subscriber(
        INDEXES_SEALED,
        auto_offset_reset="latest",
        ack_policy=AckPolicy.ACK_FIRST,
    )
    async def sealed(_body: bytes) -> None:
        builder.wake()

    for wait in backoff_seconds():
        try:
            await broker.start()
            break
        except Exception as error:  # noqa: BLE001
            runtime.log.warning("kafka does not answer: trying again", error=str(error))
            if await sleep_unless(runtime.stopping, wait):
                return
    try:
        await asyncio.shield(runtime.stopping.wait())
    finally:
        await broker.stop()


if __name__ == "__main__":
    run_service("image-builder", ImageBuilderSettings, serve)
