"""Counts and times the calls that this process sends to one endpoint."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from typing import TypeVar

import grpc

from shashin.metrics import rpc as metrics

T = TypeVar("T")


class ClientCalls:
    """The calls to an endpoint of some role and tier."""

    def __init__(self, role: str, tier: str) -> None:
        self._role = role
        self._tier = tier

    async def observed(self, method: str, call: Awaitable[T]) -> T:
        """Return the response of a call that was just sent.

        Raises:
            grpc.aio.AioRpcError: when the call fails.
        """
        started = time.perf_counter()
        status = "UNKNOWN"
        try:
            response = await call
            status = "OK"
        except grpc.aio.AioRpcError as error:
            status = error.code().name
            raise
        except asyncio.CancelledError:
            status = "CANCELLED"
            raise
        finally:
            of = method, self._role, self._tier
            metrics.CLIENT_LATENCY.labels(*of).observe(time.perf_counter() - started)
            metrics.CLIENT_ANSWERS.labels(*of, status).inc()
        return response
