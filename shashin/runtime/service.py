"""The lifecycle of a service process: settings, logs, probes, the work itself, graceful shutdown."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
from collections.abc import Awaitable, Callable

from shashin.errors import SettingsError, ShashinError
from shashin.metrics import process as metrics
from shashin.runtime import failpoints, tracing
from shashin.runtime.health import Health
from shashin.runtime.logging import configure_logging, get_logger, set_log_level
from shashin.runtime.loop_lag import loop_lag_observed
from shashin.runtime.probes import start_probes
from shashin.runtime.scope import ServiceScope, SettingsT
from shashin.runtime.settings import load_settings

Serve = Callable[[ServiceScope[SettingsT]], Awaitable[None]]


async def _serve(name: str, settings: SettingsT, serve: Serve[SettingsT]) -> int:
    log = get_logger(name)
    health = Health(stall_seconds=settings.stall_seconds)
    stop, signalled = asyncio.Event(), asyncio.Event()

    def on_signal() -> None:
        signalled.set()
        stop.set()

    loop = asyncio.get_running_loop()
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signal_number, on_signal)
    loop.add_signal_handler(signal.SIGUSR1, _log_from, name, "debug")
    loop.add_signal_handler(signal.SIGUSR2, _log_from, name, settings.log_level)
    scope = ServiceScope(name, settings, health, stop, started=_keep_what_is_there)
    runner, port = await start_probes(health, settings.http_host, settings.http_port)
    metrics.SERVICE.labels(name).info({})
    log.info("started", http_port=port, pid=os.getpid())
    try:
        with loop_lag_observed():
            await serve(scope)
    except SettingsError:
        # Found only now, since it depends on more than the value: exits as at the start.
        raise
    except ShashinError as error:
        if signalled.is_set() and error.retryable:
            # It was waiting for an unavailable dependency when the signal came.
            log.info("drained", left_waiting=error.message)
            return 0
        log.error("stopped by an error", error=error.message, reason=error.reason)  # noqa: TRY400
        return 1
    except Exception:
        log.exception("stopped by an unexpected error")
        return 1
    finally:
        await runner.cleanup()
    log.info("drained")
    return 0


def _keep_what_is_there() -> None:
    """Take all objects of the start out of garbage collections.

    They live as long as the process, and going through all of them takes a tenth of a second now and then, in
    which nothing is answered.
    """
    gc.collect()
    gc.freeze()


def _log_from(name: str, level: str) -> None:
    """Change the level of logs, and say so while the lower of both is in force."""
    log = get_logger(name)
    if level == "debug":
        set_log_level(name, level)
    log.warning("log level changed", log_level=level)
    set_log_level(name, level)
    metrics.DEBUG_LOGS.set(level == "debug")


def run_service(name: str, settings_class: type[SettingsT], serve: Serve[SettingsT]) -> None:
    """Run a service until SIGTERM, then exit: 0 after a drain, 1 on an error, 2 on bad settings."""
    try:
        settings = load_settings(settings_class)
    except ShashinError as error:
        sys.stderr.write(f"{name}: {error.message}\n")
        raise SystemExit(2) from None
    failpoints.enable(name)
    configure_logging(name, level=settings.log_level, log_format=settings.log_format)
    metrics.DEBUG_LOGS.set(settings.log_level == "debug")
    tracing.start(
        name,
        endpoint=settings.trace_endpoint,
        share=settings.trace_share,
        per_second=settings.traces_per_second,
    )
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
        finally:
            tracing.stop()
    raise SystemExit(code)
