"""Writes thumbnails behind the pipeline's back: nothing waits for the store, and no listing depends on it."""

from __future__ import annotations

import asyncio
import time

from shashin.errors import ObjectStoreUnavailable, ShashinError, UnexpectedFailure
from shashin.metrics import thumbnails as metrics
from shashin.photo_hash import hex_photo_hash, photo_hash
from shashin.runtime.backoff import backoff_seconds
from shashin.runtime.logging import get_logger
from shashin.runtime.scope import Loop, LoopScope
from shashin.thumbnails.store import ThumbnailStore
from shashin.thumbnails.write_queue import Offer, WriteQueue

PART = "thumbnails"

WRITES_AT_ONCE = 16
ATTEMPTS = 3
ATTEMPT_SECONDS = 20.0
"""An adapter retries for 10 seconds by itself; one that hangs is left alone after this."""
PAUSE_SECONDS = 1.0
"""Before the second attempt; it doubles."""
SLOW_SECONDS = 60.0
"""For how long /healthz says that thumbnails were dropped."""
_CHECK_SECONDS = 1.0

log = get_logger(__name__)


class ThumbnailWriter:
    """A bounded queue in front of the store. What does not fit is dropped and counted.

    ``queue_bytes`` bounds what waits or is being written. Whoever offers thumbnails calls ``finish`` after
    the last one.
    """

    def __init__(
        self,
        store: ThumbnailStore,
        *,
        queue_bytes: int,
        attempt_seconds: float = ATTEMPT_SECONDS,
        pause_seconds: float = PAUSE_SECONDS,
    ) -> None:
        self._store = store
        self._queue = WriteQueue(queue_bytes)
        self._attempt_seconds = attempt_seconds
        self._pause_seconds = pause_seconds
        self._changed = asyncio.Event()
        self._finished = False
        self._failure = ""
        """Why the last write failed; empty if it succeeded."""
        self._dropped_at = float("-inf")
        metrics.WAITING_BYTES.set_function(lambda: self._queue.held_bytes)

    @property
    def problem(self) -> str:
        """What is wrong, for /healthz; empty if nothing is."""
        if self._failure:
            return f"are not written: {self._failure}"
        if time.monotonic() - self._dropped_at < SLOW_SECONDS:
            return "are written more slowly than they come, so some are dropped"
        return ""

    def offer(self, content_sha256: bytes, thumbnail: bytes) -> None:
        """Have a photo's thumbnail written some time later, if there is room; never waits, and never fails.

        ``content_sha256`` is the digest of the original.
        """
        name = hex_photo_hash(photo_hash(content_sha256))
        if not name:
            return
        outcome = self._queue.offer(name, thumbnail)
        if outcome is Offer.NO_ROOM:
            metrics.DROPPED.labels(metrics.NO_ROOM).inc()
            self._dropped_at = time.monotonic()
        elif outcome is Offer.TAKEN:
            self._changed.set()

    def finish(self) -> None:
        """Say that nothing will be offered any more."""
        self._finished = True
        self._changed.set()

    def loop(self) -> Loop:
        """Return the loop that writes.

        Once it must stop, it writes what waits, until it is cancelled.
        """
        return Loop(PART, self.run, optional=True)

    async def run(self, loop: LoopScope) -> None:
        """Write until stopped and finished."""
        writing = [asyncio.ensure_future(self._write_all()) for _ in range(WRITES_AT_ONCE)]
        try:
            while loop.next_turn():
                self._report(loop)
                await loop.sleep(_CHECK_SECONDS)
            await asyncio.gather(*writing)
        finally:
            for one in writing:
                one.cancel()
            await asyncio.gather(*writing, return_exceptions=True)
            metrics.DROPPED.labels(metrics.AT_SHUTDOWN).inc(self._queue.unwritten)

    def _report(self, loop: LoopScope) -> None:
        if problem := self.problem:
            loop.degraded(PART, problem)
        else:
            loop.clear(PART)

    async def _write_all(self) -> None:
        while True:
            if (waiting := self._queue.next()) is not None:
                name, thumbnail = waiting
                self._queue.done(name, written=await self._written(name, thumbnail))
            elif self._finished:
                return
            else:
                self._changed.clear()
                await self._changed.wait()

    async def _written(self, name: str, thumbnail: bytes) -> bool:
        """Write a thumbnail; returns whether it is there after all attempts."""
        pauses = backoff_seconds(first=self._pause_seconds)
        for attempt in range(1, ATTEMPTS + 1):
            error = await self._attempt(name, thumbnail)
            self._note(error)
            if error is None:
                return True
            if attempt == ATTEMPTS or not error.retryable:
                metrics.FAILURES.labels(error.reason).inc()
                break
            await asyncio.sleep(next(pauses))
        return False

    async def _attempt(self, name: str, thumbnail: bytes) -> ShashinError | None:
        started = time.perf_counter()
        try:
            async with asyncio.timeout(self._attempt_seconds):
                new = await self._store.write(name, thumbnail)
        except TimeoutError:
            return ObjectStoreUnavailable(
                f"the store of thumbnails does not respond within {self._attempt_seconds:g} s"
            )
        except ShashinError as error:
            return error
        except Exception as error:
            log.exception("unexpected failure of the store of thumbnails")
            return UnexpectedFailure(f"unexpected failure of the store of thumbnails: {error!r}")
        metrics.WRITE_SECONDS.observe(time.perf_counter() - started)
        metrics.WRITTEN.labels(metrics.NEW if new else metrics.EXISTING).inc()
        return None

    def _note(self, error: ShashinError | None) -> None:
        if error is None and self._failure:
            log.info("thumbnails are written again")
        elif error is not None and not self._failure:
            log.warning(
                "thumbnails are not written",
                error=error.message,
            )
        self._failure = "" if error is None else error.message
