"""One model, shared: queries before listings, and what waits together is embedded together.

A call of the model cannot be interrupted, so listings are embedded in small calls: a query waits
for one of those at most. Nothing waits for a batch to fill: while one call runs the next one
gathers, so batches grow with the load and not with a timer.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from typing import Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from services.embedder import metrics
from shashin.errors import EmbedderOverloaded
from shashin.runtime.scope import LoopScope

_IDLE_SECONDS = 1.0

Vectors = npt.NDArray[np.float32]


class Model(Protocol):
    """What embeds: shashin.model's PhotoEmbedder, or a test's own."""

    @property
    def model_id(self) -> str:
        """Name of the vector space."""
        ...

    @property
    def dimensions(self) -> int:
        """Length of a vector."""
        ...

    def embed(self, photos: Sequence[Image.Image]) -> Vectors:
        """Return one unit vector a photo, (n, dimensions)."""
        ...


class Kind(StrEnum):
    """Who asks."""

    QUERY = "query"
    LISTING = "listing"


@dataclass
class _Job:
    photos: Sequence[Image.Image]
    done: asyncio.Future[Vectors]
    since: float
    taken: int = 0
    """Photos that are embedded or under way."""
    parts: list[Vectors] = field(default_factory=list)


class BatchedModel:
    """Gathers photos into calls of the model, which run in ``executor``, one at a time."""

    def __init__(
        self, model: Model, executor: Executor, *, batch_photos: int, waiting_queries: int
    ) -> None:
        self._model = model
        self._executor = executor
        self._batch_photos = batch_photos
        self._waiting_queries = waiting_queries
        self._queues: dict[Kind, deque[_Job]] = {kind: deque() for kind in Kind}
        self._news = asyncio.Event()
        for kind in Kind:
            metrics.WAITING.labels(kind).set_function(partial(self.waiting, kind))

    @property
    def model_id(self) -> str:
        """Name of the model's vector space."""
        return self._model.model_id

    @property
    def dimensions(self) -> int:
        """Length of the model's vectors."""
        return self._model.dimensions

    def waiting(self, kind: Kind) -> int:
        """Return how many photos wait for the model."""
        return sum(len(job.photos) - job.taken for job in self._queues[kind])

    async def embed(self, photos: Sequence[Image.Image], kind: Kind) -> Vectors:
        """Return one unit vector a photo, (n, dimensions).

        Raises:
            EmbedderOverloaded: when too many queries wait already.
        """
        if not photos:
            return np.zeros((0, self.dimensions), np.float32)
        if kind is Kind.QUERY and self.waiting(kind) + len(photos) > self._waiting_queries:
            raise EmbedderOverloaded(
                f"{self.waiting(kind)} photos wait for the model already, of at most "
                f"{self._waiting_queries}: ask again later, or run more embedders"
            )
        job = _Job(photos, asyncio.get_running_loop().create_future(), time.perf_counter())
        self._queues[kind].append(job)
        self._news.set()
        try:
            return await job.done
        except asyncio.CancelledError:
            job.done.cancel()
            raise

    async def run(self, loop: LoopScope) -> None:
        """Call the model until stopped and nothing waits any more."""
        try:
            while loop.next_turn() or self._anything_waits():
                if not await self._call_once():
                    self._news.clear()
                    await loop.wait(self._news, _IDLE_SECONDS)
        finally:
            for job in (job for queue in self._queues.values() for job in queue):
                job.done.cancel()

    def _anything_waits(self) -> bool:
        return any(self._queues.values())

    async def _call_once(self) -> bool:
        """Embed one batch; returns False when nothing waits."""
        for kind in Kind:  # queries first
            batch = self._take(kind)
            if batch:
                await self._call(kind, batch)
                return True
        return False

    def _take(self, kind: Kind) -> list[tuple[_Job, Sequence[Image.Image]]]:
        """Take the photos of the next call: the first that wait, whole jobs or parts of them."""
        queue, room = self._queues[kind], self._batch_photos
        batch: list[tuple[_Job, Sequence[Image.Image]]] = []
        while queue and room:
            job = queue[0]
            if job.done.done():  # nobody waits for it any more
                queue.popleft()
                continue
            part = job.photos[job.taken : job.taken + room]
            if job.taken == 0:
                waited = time.perf_counter() - job.since
                metrics.WAIT_SECONDS.labels(kind).observe(waited)
            job.taken += len(part)
            room -= len(part)
            batch.append((job, part))
            if job.taken == len(job.photos):
                queue.popleft()
        return batch

    async def _call(self, kind: Kind, batch: list[tuple[_Job, Sequence[Image.Image]]]) -> None:
        photos = [photo for _, part in batch for photo in part]
        started = time.perf_counter()
        try:
            vectors = await asyncio.get_running_loop().run_in_executor(
                self._executor, self._model.embed, photos
            )
        except Exception as error:  # noqa: BLE001 - reaches those who asked
            for job, _ in batch:
                if not job.done.done():
                    job.done.set_exception(error)
            return
        metrics.MODEL_SECONDS.labels(kind).observe(time.perf_counter() - started)
        metrics.BATCH_PHOTOS.labels(kind).observe(len(photos))
        metrics.PHOTOS.labels(kind).inc(len(photos))
        begin = 0
        for job, part in batch:
            job.parts.append(vectors[begin : begin + len(part)])
            begin += len(part)
            if job.taken == len(job.photos) and not job.done.done():
                job.done.set_result(np.concatenate(job.parts))
