"""Dynamic batching for one shared model; queries take priority over listings.

A model call cannot be interrupted, so listings are embedded in small calls and a query waits for
at most one of them. No call waits for its batch to fill: photos accumulate while the previous call
runs, so batches grow with load, without a timer.
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
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from shashin.metrics import embedder as metrics
from shashin.runtime import tracing
from shashin.runtime.scope import LoopScope

if TYPE_CHECKING:
    from shashin.runtime.spans import Span

_IDLE_SECONDS = 1.0

Vectors = npt.NDArray[np.float32]


class Model(Protocol):
    """The model: shashin.model's PhotoEmbedder, or a test double."""

    @property
    def model_id(self) -> str:
        """Id of the vector space."""
        ...

    @property
    def dimensions(self) -> int:
        """Dimensions of a vector."""
        ...

    def embed(self, photos: Sequence[Image.Image]) -> Vectors:
        """Return one unit vector per photo, (n, dimensions)."""
        ...


class Kind(StrEnum):
    """The kind of request."""

    QUERY = "query"
    LISTING = "listing"


@dataclass
class _Job:
    photos: Sequence[Image.Image]
    done: asyncio.Future[Vectors]
    queued_at: float
    submitted: int = 0
    """Photos already passed to the model."""
    parts: list[Vectors] = field(default_factory=list)
    span: Span | None = field(default_factory=tracing.current)
    """In which it waits, while tracing is on."""


class BatchedModel:
    """Batches photos into model calls, which run in ``executor`` one at a time."""

    def __init__(self, model: Model, executor: Executor, *, batch_photos: int) -> None:
        self._model = model
        self._executor = executor
        self._batch_photos = batch_photos
        self._queues: dict[Kind, deque[_Job]] = {kind: deque() for kind in Kind}
        self._wake = asyncio.Event()
        for kind in Kind:
            metrics.WAITING.labels(kind).set_function(partial(self.waiting, kind))

    @property
    def model_id(self) -> str:
        """Id of the model's vector space."""
        return self._model.model_id

    @property
    def dimensions(self) -> int:
        """Dimensions of the model's vectors."""
        return self._model.dimensions

    def waiting(self, kind: Kind) -> int:
        """Return the number of photos waiting for the model."""
        return sum(len(job.photos) - job.submitted for job in self._queues[kind])

    async def embed(self, photos: Sequence[Image.Image], kind: Kind) -> Vectors:
        """Return one unit vector per photo, (n, dimensions)."""
        if not photos:
            return np.zeros((0, self.dimensions), np.float32)
        job = _Job(photos, asyncio.get_running_loop().create_future(), time.perf_counter())
        self._queues[kind].append(job)
        self._wake.set()
        try:
            return await job.done
        except asyncio.CancelledError:
            job.done.cancel()
            raise

    async def run(self, loop: LoopScope) -> None:
        """Call the model until stopped and the queues are empty."""
        try:
            while loop.next_turn() or self._has_pending():
                if not await self._call_once():
                    self._wake.clear()
                    await loop.wait(self._wake, _IDLE_SECONDS)
        finally:
            for job in (job for queue in self._queues.values() for job in queue):
                job.done.cancel()

    def _has_pending(self) -> bool:
        return any(self._queues.values())

    async def _call_once(self) -> bool:
        """Embed one batch; returns False if nothing was waiting."""
        for kind in Kind:  # queries first
            batch = self._take(kind)
            if batch:
                await self._call(kind, batch)
                return True
        return False

    def _take(self, kind: Kind) -> list[tuple[_Job, Sequence[Image.Image]]]:
        """Take the photos of the next call in FIFO order, as whole jobs or parts of them."""
        queue, remaining = self._queues[kind], self._batch_photos
        batch: list[tuple[_Job, Sequence[Image.Image]]] = []
        while queue and remaining:
            job = queue[0]
            if job.done.done():  # the caller was cancelled
                queue.popleft()
                continue
            part = job.photos[job.submitted : job.submitted + remaining]
            if job.submitted == 0:
                waited = time.perf_counter() - job.queued_at
                metrics.WAIT_SECONDS.labels(kind).observe(waited)
            job.submitted += len(part)
            remaining -= len(part)
            batch.append((job, part))
            if job.submitted == len(job.photos):
                queue.popleft()
        return batch

    async def _call(self, kind: Kind, batch: list[tuple[_Job, Sequence[Image.Image]]]) -> None:
        photos = [photo for _, part in batch for photo in part]
        started = time.perf_counter()
        try:
            vectors = await asyncio.get_running_loop().run_in_executor(
                self._executor, self._model.embed, photos
            )
        except Exception as error:  # noqa: BLE001 - passed to the callers
            for job, _ in batch:
                if not job.done.done():
                    job.done.set_exception(error)
            return
        seconds = time.perf_counter() - started
        metrics.MODEL_SECONDS.labels(kind).observe(seconds)
        if (tracer := tracing.tracer()) is not None:
            spans = [job.span for job, _ in batch if job.span is not None]
            tracer.shared(
                "call model", spans, seconds, {"shashin.photos": len(photos), "shashin.kind": kind}
            )
        metrics.BATCH_PHOTOS.labels(kind).observe(len(photos))
        metrics.PHOTOS.labels(kind).inc(len(photos))
        start = 0
        for job, part in batch:
            job.parts.append(vectors[start : start + len(part)])
            start += len(part)
            if job.submitted == len(job.photos) and not job.done.done():
                job.done.set_result(np.concatenate(job.parts))
