"""Decodes query photos, within limits of their own and in threads of their own."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from PIL import Image

from shashin.errors import EmbedderOverloaded
from shashin.metrics import embedder as metrics
from shashin.photo_box import Box
from shashin.photos import DecodeBudget, thumbnail_image


@dataclass(frozen=True)
class QueryLimits:
    """What the query photos of all calls may take together."""

    photos: int
    """Photos from their arrival to the answer."""
    photo_bytes: int
    """Bytes of these as they were sent."""
    decoders: int
    """Threads."""
    decode_bytes: int
    """Memory of decodes under way, in bytes."""


class QueryDecoder:
    """Admits query photos and decodes them; a context manager.

    It owns its threads, so that a query never waits behind thumbnails of listings.
    """

    def __init__(self, limits: QueryLimits) -> None:
        self._limits = limits
        self._photos = 0
        self._bytes = 0
        self._budget = DecodeBudget(limits.decode_bytes)
        self._executor = ThreadPoolExecutor(limits.decoders, thread_name_prefix="decode-query")
        metrics.QUERY_PHOTOS.set_function(lambda: self._photos)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._executor.shutdown(cancel_futures=True)

    @contextmanager
    def admit(self, photos: Sequence[bytes]) -> Iterator[None]:
        """Count a call's photos while the context is open.

        Raises:
            EmbedderOverloaded: when there would be too many, or too many bytes of them.
        """
        limits, size = self._limits, sum(map(len, photos))
        if self._photos + len(photos) > limits.photos or self._bytes + size > limits.photo_bytes:
            metrics.REFUSED_QUERY_PHOTOS.inc(len(photos))
            raise EmbedderOverloaded(
                f"{self._photos} query photos of {self._bytes} bytes are waiting or under way, so "
                f"{len(photos)} of {size} bytes are too many; at most {limits.photos} photos of "
                f"{limits.photo_bytes} bytes are allowed: retry later, or run more embedders"
            )
        self._photos += len(photos)
        self._bytes += size
        try:
            yield
        finally:
            self._photos -= len(photos)
            self._bytes -= size

    async def decode(self, photo: bytes, box: Box | None = None) -> Image.Image:
        """Return a photo, or the part of it in a box, at the size that models use.

        Raises:
            PhotoError: when it cannot be used.
            InvalidQuery: when there are too few pixels in the box.
        """
        return await asyncio.get_running_loop().run_in_executor(
            self._executor, self._decoded, photo, box
        )

    def _decoded(self, photo: bytes, box: Box | None) -> Image.Image:
        return thumbnail_image(photo, box=box, budget=self._budget)
