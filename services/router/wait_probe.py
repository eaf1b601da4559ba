"""Measures how long a call waits until the router looks at it, by a call of its own.

Calls that have arrived wait within gRPC, one behind another, and nothing tells how many there are. So one
that does nothing is sent the same way while others come, over a Unix socket, so that it works whatever the
port asks of its clients.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.router.gate import Gate
from services.router.refusal_rate import RefusalRate
from shashin.metrics import admission as metrics
from shashin.rpc.channel import open_channel
from shashin.runtime.scope import Loop, LoopScope

_EVERY_SECONDS = 0.05
_TIMEOUT_SECONDS = 5.0


@asynccontextmanager
async def private_socket() -> AsyncIterator[Path]:
    """Yield the path of a Unix socket that only this user can reach."""
    folder = Path(tempfile.mkdtemp(prefix="shashin-router-"))
    try:
        yield folder / "calls"
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class WaitProbe:
    """Tells a gate how long calls wait."""

    def __init__(self, gate: Gate, rate: RefusalRate, socket: Path) -> None:
        self._gate = gate
        self._rate = rate
        self._socket = socket
        self._seen = 0
        """Calls that had come when it looked last."""
        self._sent_at: float | None = None
        """Of the call that has no answer yet."""
        self._call: asyncio.Task[None] | None = None
        self._waited = 0.0

    def loop(self) -> Loop:
        """Return the loop; it does nothing while no calls come."""
        return Loop("wait probe", self._run)

    async def _run(self, loop: LoopScope) -> None:
        async with open_channel(f"unix:{self._socket}") as channel:
            health = health_pb2_grpc.HealthStub(channel)
            try:
                while loop.next_turn():
                    self._look(health)
                    await loop.sleep(_EVERY_SECONDS)
            finally:
                if self._call is not None:
                    self._call.cancel()

    def _look(self, health: health_pb2_grpc.HealthStub) -> None:
        rate, calls = self._rate, self._gate.calls
        # The wait of a call without an answer is at least what it has waited so far.
        if self._sent_at is not None:
            rate.update(max(self._waited, time.monotonic() - self._sent_at))
            return
        rate.update(self._waited)
        if calls != self._seen:
            self._seen = calls
            self._sent_at = time.monotonic()
            self._call = asyncio.ensure_future(self._measure(health, self._sent_at))
        else:
            self._waited = 0.0

    async def _measure(self, health: health_pb2_grpc.HealthStub, sent_at: float) -> None:
        try:
            await health.Check(health_pb2.HealthCheckRequest(), timeout=_TIMEOUT_SECONDS)
        except grpc.aio.AioRpcError:
            # Refused or too late: what it waited for counts all the same.
            pass
        finally:
            self._waited = time.monotonic() - sent_at
            metrics.WAIT_SECONDS.observe(self._waited)
            self._sent_at = None
