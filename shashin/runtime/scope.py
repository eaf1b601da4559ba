"""The life of a service process: settings, logs, probes, the work itself, and the drain."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import structlog
from prometheus_client import Info

from shashin.errors import ShashinError
from shashin.runtime import failpoints
from shashin.runtime.health import Health
from shashin.runtime.http import start_http
from shashin.runtime.logging import configure_logging, get_logger
from shashin.runtime.settings import ServiceSettings, load_settings

T = TypeVar("T", bound=ServiceSettings)

BUILD = Info("shashin_service", "Which service this process is.")


@dataclass
class Runtime(Generic[T]):
    """What a service's ``serve`` function is given."""

    name: str
    settings: T
    health: Health
    stopping: asyncio.Event
    log: structlog.stdlib.BoundLogger

    async def run_until_stopped(self, *loops: Coroutine[Any, Any, None]) -> None:
        """Run the loops until SIGTERM, or until one of them fails; then end the others.

        A loop sees ``stopping`` and returns; what has not returned within ``drain_seconds`` is
        cancelled.
        """
        tasks = [asyncio.ensure_future(loop) for loop in loops]
        stop = asyncio.ensure_future(self.stopping.wait())
        try:
            first, _ = await asyncio.wait([*tasks, stop], return_when=asyncio.FIRST_COMPLETED)
            self.stopping.set()
            _, late = await asyncio.wait(tasks, timeout=self.settings.drain_seconds)
            if late:
                self.log.warning("cancelled work that did not drain", loops=len(late))
            for task in late:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            # What ended first is the cause: others may have failed only because it did.
            for task in sorted(tasks, key=lambda task: task not in first):
                if not task.cancelled() and (error := task.exception()) is not None:
                    raise error
        finally:
            stop.cancel()
            for task in tasks:
                task.cancel()


async def sleep_unless(stopping: asyncio.Event, seconds: float) -> bool:
    """Sleep, but wake when ``stopping`` is set; returns whether it is."""
    try:
        await asyncio.wait_for(stopping.wait(), seconds)
    except TimeoutError:
        return False
    return True


async def _serve(name: str, settings: T, serve: Callable[[Runtime[T]], Awaitable[None]]) -> int:
    log = get_logger(name)
    health = Health(stall_seconds=settings.stall_seconds)
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signal_number, stopping.set)
    runner, port = await start_http(health, settings.http_host, settings.http_port)
    BUILD.info({"service": name})
    log.info("started", http_port=port, pid=os.getpid())
    try:
        await serve(Runtime(name, settings, health, stopping, log))
    except ShashinError as error:
        log.error("stopped by an error", error=error.message, reason=error.reason)  # noqa: TRY400
        return 1
    except Exception:
        log.exception("stopped by an unexpected error")
        return 1
    finally:
        await runner.cleanup()
    log.info("drained")
    return 0


def run_service(
    name: str, settings_class: type[T], serve: Callable[[Runtime[T]], Awaitable[None]]
) -> None:
    """Run a service until SIGTERM, then exit: 0 after a drain, 1 on an error, 2 on bad settings."""
    try:
        settings = load_settings(settings_class)
    except ShashinError as error:
        sys.stderr.write(f"{name}: {error.message}\n")
        raise SystemExit(2) from None
    failpoints.enable(name)
    configure_logging(name, level=settings.log_level, log_format=settings.log_format)
    try:
        import uvloop
    except ImportError:
        factory = None
    else:
        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        try:
            code = runner.run(_serve(name, settings, serve))
        except ShashinError as error:
            sys.stderr.write(f"{name}: {error.message}\n")
            code = 2
    raise SystemExit(code)
