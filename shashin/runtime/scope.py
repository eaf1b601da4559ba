"""A process is a scope: it runs loops, and hands each of them one handle on everything it needs.

A loop cannot be run without its name and what it has to reach before the process is ready, since
``ServiceScope.run`` takes nothing else. It cannot turn without noting progress, since only
``next_turn``, ``sleep`` and ``wait`` tell it whether to go on. It cannot retry in silence, since
only ``retry`` does, and says on /healthz and in the log what it waits for.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import structlog

from shashin.errors import ShashinError
from shashin.runtime.backoff import backoff_seconds
from shashin.runtime.health import START, Health, LoopHealth
from shashin.runtime.logging import get_logger
from shashin.runtime.settings import ServiceSettings

T = TypeVar("T")
SettingsT = TypeVar("SettingsT", bound=ServiceSettings)

_IDLE_SECONDS = 1.0

log = get_logger(__name__)


@dataclass(frozen=True)
class Loop:
    """Work that goes on until the process is to stop."""

    name: str
    run: Callable[[LoopScope], Awaitable[None]]
    ready_when: str = ""
    """What it has to reach before the process is ready, as a person reads it; empty: nothing."""


class LoopScope:
    """A loop's handle on its process."""

    def __init__(self, health: LoopHealth, stop: asyncio.Event) -> None:
        self._health = health
        self._stop = stop

    @property
    def name(self) -> str:
        """The loop's name, as probes and logs show it."""
        return self._health.name

    @property
    def stopping(self) -> bool:
        """Whether the loop is to come to its end."""
        return self._stop.is_set()

    # --- turns ----------------------------------------------------------------------------------

    def next_turn(self) -> bool:
        """Note progress; returns whether there is another turn, False once the loop is to stop."""
        self._health.progress()
        return not self.stopping

    async def sleep(self, seconds: float) -> bool:
        """Sleep, but wake when the loop is to stop; returns whether it is to go on."""
        return await self.wait(None, seconds)

    async def wait(self, event: asyncio.Event | None, seconds: float) -> bool:
        """Wait until the event is set, the time is over or the loop is to stop.

        Returns whether the loop is to go on.
        """
        waits = [
            asyncio.ensure_future(one.wait()) for one in (self._stop, event) if one is not None
        ]
        try:
            with self._health.sleeping():
                await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in waits:
                one.cancel()
        return self.next_turn()

    async def until_stopped(self) -> None:
        """Do nothing until the loop is to stop."""
        while await self.sleep(_IDLE_SECONDS):
            pass

    # --- readiness and problems -----------------------------------------------------------------

    def ready(self) -> None:
        """Report that the loop has reached what it was to reach."""
        assert self._health.ready_when, f"{self.name} was not declared with ready_when"
        self._health.not_ready = None

    def not_ready(self, why: str) -> None:
        """Report that it has not, or no longer."""
        assert self._health.ready_when, f"{self.name} was not declared with ready_when"
        self._health.not_ready = why

    def degraded(self, part: str, why: str) -> None:
        """Report that a part of the loop's work does not get done, and why."""
        self._health.degraded[part] = why

    def clear(self, part: str) -> None:
        """Report that it gets done again."""
        self._health.degraded.pop(part, None)

    def waiting_for(self, what: str) -> AbstractContextManager[None]:
        """Wait for something outside of this process: no stall, and on /healthz when it is long."""
        return self._health.waiting_for(what)

    async def retry(
        self,
        what: str,
        do: Callable[[], Awaitable[T]],
        *,
        also: tuple[type[ShashinError], ...] = (),
    ) -> T:
        """Do it, and again after each retryable error, until it succeeds.

        ``what`` names it in the log and, while it fails, on /healthz. Errors of ``also`` are
        retried as well, though a person has to fix what they name: what else the process does has
        to go on meanwhile.

        Raises:
            ShashinError: an error that no retry can help, or the last one when the loop is to stop.
        """
        try:
            for attempts, wait in enumerate(backoff_seconds(), start=1):
                try:
                    with self.waiting_for(what):
                        return await do()
                except ShashinError as error:
                    if self.stopping or not (error.retryable or isinstance(error, also)):
                        raise
                    self.degraded(what, error.message)
                    log.warning("retrying", what=what, attempts=attempts, error=error.message)
                await self.sleep(wait)
        finally:
            self.clear(what)
        raise AssertionError("unreachable: the waits never end")


class ServiceScope(Generic[SettingsT]):
    """One service process: what its ``serve`` function is given.

    Until ``run`` is called the process is starting: it is not ready, and has ``start_seconds``
    instead of ``stall_seconds`` to make progress.
    """

    def __init__(self, name: str, settings: SettingsT, health: Health, stop: asyncio.Event) -> None:
        self.name = name
        self.settings = settings
        self.health = health
        self.log: structlog.stdlib.BoundLogger = get_logger(name)
        self._stop = stop
        self._starting = health.register(
            START, ready_when="the start to finish", stall_seconds=settings.start_seconds
        )
        self.start = LoopScope(self._starting, stop)
        """The handle of the start itself."""
        self._background: list[asyncio.Future[Any]] = []

    async def run(self, *loops: Loop) -> None:
        """Run the loops until SIGTERM, or until one of them ends or fails; then end the others.

        A loop sees that it is to stop and returns; what has not returned within ``drain_seconds``
        is cancelled.

        Raises:
            Exception: what the first of the loops that failed raised.
        """
        # Every loop is registered before the first one runs and before the start is over, so that
        # no probe ever sees a process that has not yet said what it waits for.
        with _registered(self.health, loops, self._stop) as handles:
            self.health.forget(self._starting)
            tasks = [
                asyncio.ensure_future(loop.run(handle))
                for loop, handle in zip(loops, handles, strict=True)
            ]
            await self._until_the_first_ends(tasks)

    async def _until_the_first_ends(self, tasks: Sequence[asyncio.Future[Any]]) -> None:
        stop: asyncio.Future[Any] = asyncio.ensure_future(self._stop.wait())
        try:
            first, _ = await asyncio.wait(
                [*tasks, *self._background, stop], return_when=asyncio.FIRST_COMPLETED
            )
            self._stop.set()
            late = set(tasks)
            if tasks:
                _, late = await asyncio.wait(tasks, timeout=self.settings.drain_seconds)
            if late:
                self.log.warning("cancelled work that did not drain", loops=len(late))
            for task in late:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            # What ended first is the cause: others may have failed only because it did.
            for task in sorted([*tasks, *self._background], key=lambda task: task not in first):
                if task.done() and not task.cancelled() and (error := task.exception()) is not None:
                    raise error
        finally:
            stop.cancel()
            for task in tasks:
                task.cancel()

    @asynccontextmanager
    async def background(self, loop: Loop) -> AsyncIterator[None]:
        """Run a loop that others depend on: it is to stop only when the context is left.

        Should it fail, ``run`` ends.
        """
        stop = asyncio.Event()
        with _registered(self.health, [loop], stop) as (handle,):
            task = asyncio.ensure_future(loop.run(handle))
            self._background.append(task)
            try:
                yield
            finally:
                stop.set()
                self._background.remove(task)
                await task


@contextmanager
def _registered(
    health: Health, loops: Sequence[Loop], stop: asyncio.Event
) -> Iterator[list[LoopScope]]:
    registered = [health.register(loop.name, ready_when=loop.ready_when) for loop in loops]
    try:
        yield [LoopScope(one, stop) for one in registered]
    finally:
        for one in registered:
            health.forget(one)
