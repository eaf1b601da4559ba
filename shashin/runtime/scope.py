"""A process is a scope: it runs loops and gives each of them a handle on the process.

The API enforces health reporting. A loop is declared with its name and readiness condition, since
``ServiceScope.run`` takes nothing else. It records progress in every iteration, since only
``next_turn``, ``sleep`` and ``wait`` return whether to continue. It cannot retry silently, since
only ``retry`` retries, and it reports what it waits for on /healthz and in the log.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import structlog

from shashin.errors import ShashinError
from shashin.metrics import process as metrics
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
    """Work that runs until the process stops."""

    name: str
    run: Callable[[LoopScope], Awaitable[None]]
    ready_when: str = ""
    """Its readiness condition, in words; empty if it has none."""
    optional: bool = False
    """Whether the process stays ready while this loop's work fails, which only /healthz says then."""


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
        """Whether the loop must stop."""
        return self._stop.is_set()

    # --- iterations -----------------------------------------------------------------------------

    def next_turn(self) -> bool:
        """Record progress; returns whether to continue, False once the loop must stop."""
        self._health.progress()
        return not self.stopping

    async def sleep(self, seconds: float) -> bool:
        """Sleep, but wake up when the loop must stop; returns whether to continue."""
        return await self.wait(None, seconds)

    async def wait(self, event: asyncio.Event | None, seconds: float) -> bool:
        """Wait until the event is set, the time has passed or the loop must stop.

        Returns whether to continue.
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
        """Do nothing until the loop must stop."""
        while await self.sleep(_IDLE_SECONDS):
            pass

    # --- readiness and problems -----------------------------------------------------------------

    def ready(self) -> None:
        """Report that the loop has met its readiness condition."""
        assert self._health.ready_when, f"{self.name} was not declared with ready_when"
        self._health.not_ready = None

    def not_ready(self, why: str) -> None:
        """Report that it does not meet the condition, or no longer does."""
        assert self._health.ready_when, f"{self.name} was not declared with ready_when"
        self._health.not_ready = why

    def degraded(self, part: str, why: str) -> None:
        """Report that a part of the loop's work is failing, and why."""
        self._health.degraded[part] = why

    def clear(self, part: str) -> None:
        """Report that it works again."""
        self._health.degraded.pop(part, None)

    def waiting_for(self, what: str) -> AbstractContextManager[None]:
        """Mark a wait for something external: never a stall, but on /healthz if it is long."""
        return self._health.waiting_for(what)

    async def retry(
        self,
        what: str,
        do: Callable[[], Awaitable[T]],
        *,
        also: tuple[type[ShashinError], ...] = (),
    ) -> T:
        """Call ``do`` until it succeeds, retrying after each retryable error.

        ``what`` names it in the log and, while it fails, on /healthz. Errors of the types in
        ``also`` are retried too: a person has to fix them, and the process's other work must
        continue until then.

        Raises:
            ShashinError: one that is not retryable, or the last one when the loop must stop.
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
                    metrics.OPERATION_RETRIES.labels(error.reason).inc()
                    log.warning("retrying", what=what, attempts=attempts, error=error.message)
                await self.sleep(wait)
        finally:
            self.clear(what)
        raise AssertionError("unreachable: the waits never end")


class ServiceScope(Generic[SettingsT]):
    """One service process: the argument of its ``serve`` function.

    Until ``run`` is called the process is starting: it is not ready, and its stall limit is
    ``start_seconds`` instead of ``stall_seconds``.
    """

    def __init__(
        self,
        name: str,
        settings: SettingsT,
        health: Health,
        stop: asyncio.Event,
        *,
        started: Callable[[], None] = lambda: None,
    ) -> None:
        """``started`` is called once, when startup ends."""
        self.name = name
        self.settings = settings
        self.health = health
        self.log: structlog.stdlib.BoundLogger = get_logger(name)
        self._stop = stop
        self._started = started
        self._starting = health.register(
            START, ready_when="the start to finish", stall_seconds=settings.start_seconds
        )
        self.start = LoopScope(self._starting, stop)
        """The handle for the startup phase."""
        self._background: list[asyncio.Future[Any]] = []

    async def run(self, *loops: Loop) -> None:
        """Run the loops until SIGTERM, or until one of them ends or fails; then stop the others.

        Each loop should return once it must stop; those that have not returned within
        ``drain_seconds`` are cancelled.

        Raises:
            Exception: the error of the first loop that failed.
        """
        # All loops are registered before the first one runs and before startup ends, so that no
        # probe sees the process as ready too early.
        with _registered(self.health, loops, self._stop) as handles:
            self.health.forget(self._starting)
            self._started()
            tasks = [
                asyncio.ensure_future(loop.run(handle))
                for loop, handle in zip(loops, handles, strict=True)
            ]
            await self._run_until_first_exit(tasks)

    async def _run_until_first_exit(self, tasks: Sequence[asyncio.Future[Any]]) -> None:
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
            # The first to end is the cause: others may have failed only as a consequence.
            for task in sorted([*tasks, *self._background], key=lambda task: task not in first):
                if task.done() and not task.cancelled() and (error := task.exception()) is not None:
                    raise error
        finally:
            stop.cancel()
            for task in tasks:
                task.cancel()

    @asynccontextmanager
    async def background(self, loop: Loop) -> AsyncIterator[None]:
        """Run a loop that others depend on: it stops only when the context exits.

        If it fails, ``run`` ends.
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
    registered = [
        health.register(loop.name, ready_when=loop.ready_when, optional=loop.optional)
        for loop in loops
    ]
    try:
        yield [LoopScope(one, stop) for one in registered]
    finally:
        for one in registered:
            health.forget(one)
