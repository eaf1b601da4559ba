"""What a call costs that does nothing: by gRPC's server and client for asyncio, and by Shashin's own.

``python -m bench.empty_calls KIND`` is a server of one kind: it prints its port, and serves until its standard
input ends.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import psutil

from bench.figures import Figure, percentile
from shashin.rpc.peer_channel import PeerChannel
from shashin.rpc.server import grpc_server
from shashin.v1 import embed_pb2, embed_pb2_grpc

_SECONDS, _CALLERS, _TURNS = 1.0, 32, 4
_KINDS = {"grpc.aio": "gRPC for asyncio", "own": "Shashin"}
_REQUEST = embed_pb2.EmbedRequest(photos=[bytes(512)])
_ANSWER = embed_pb2.EmbedResponse(model_id="x" * 1000)

Call = Callable[[], Awaitable[Any]]


def planned_figures() -> list[Figure]:
    """Return every figure."""
    return [
        Figure(f"empty call, {name}: {what}", unit)
        for name in _KINDS.values()
        for what, unit in (
            ("p50 alone", "ms"),
            (f"{_CALLERS} callers", "calls/s"),
            ("CPU time of the server, alone", "ms"),
            (f"CPU time of the server, {_CALLERS} callers", "ms"),
        )
    ]


class _Handlers(embed_pb2_grpc.EmbedServiceServicer):
    async def Embed(  # noqa: N802
        self, request: embed_pb2.EmbedRequest, context: Any
    ) -> embed_pb2.EmbedResponse:
        del request, context
        return _ANSWER


async def empty_calls(_scratch: Path) -> dict[str, float]:
    """Measure both kinds in turns."""
    took: dict[str, list[float]] = {name: [] for name in _KINDS}
    calls, alone, together = (
        dict.fromkeys(_KINDS, 0),
        dict.fromkeys(_KINDS, 0.0),
        dict.fromkeys(_KINDS, 0.0),
    )
    async with AsyncExitStack() as stack:
        servers = {kind: await stack.enter_async_context(_calling(kind)) for kind in _KINDS}
        for _ in range(_TURNS):
            for kind, (process, call) in servers.items():
                before = _cpu_of(process)
                took[kind] += await _one_after_the_other(call)
                after = _cpu_of(process)
                alone[kind] += after - before
                calls[kind] += await _at_once(call)
                together[kind] += _cpu_of(process) - after
    figures = {}
    for kind, name in _KINDS.items():
        prefix = f"empty call, {name}"
        figures[f"{prefix}: p50 alone"] = 1e3 * percentile(took[kind], 0.5)
        figures[f"{prefix}: {_CALLERS} callers"] = calls[kind] / (_TURNS * _SECONDS)
        figures[f"{prefix}: CPU time of the server, alone"] = 1e3 * alone[kind] / len(took[kind])
        figures[f"{prefix}: CPU time of the server, {_CALLERS} callers"] = (
            1e3 * together[kind] / calls[kind]
        )
    return figures


def _cpu_of(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


async def _one_after_the_other(call: Call) -> list[float]:
    took, ends_at = [], time.perf_counter() + _SECONDS
    while (sent := time.perf_counter()) < ends_at:
        await call()
        took.append(time.perf_counter() - sent)
    return took


async def _at_once(call: Call) -> int:
    ends_at = time.perf_counter() + _SECONDS

    async def caller() -> int:
        calls = 0
        while time.perf_counter() < ends_at:
            await call()
            calls += 1
        return calls

    return sum(await asyncio.gather(*(caller() for _ in range(_CALLERS))))


@asynccontextmanager
async def _calling(kind: str) -> AsyncIterator[tuple[psutil.Process, Call]]:
    """Yield a server, and what calls it once."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", __name__, kind), stdin=-1, stdout=-1
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        address = f"127.0.0.1:{int(await process.stdout.readline())}"
        channel: Any = PeerChannel(address) if kind == "own" else grpc.aio.insecure_channel(address)
        embed: Any = embed_pb2_grpc.EmbedServiceStub(channel).Embed
        yield psutil.Process(process.pid), lambda: embed(_REQUEST, timeout=60.0)
        await channel.close()
    finally:
        process.stdin.close()
        await process.wait()


async def _serve(kind: str) -> None:
    def add(server: grpc.aio.Server) -> None:
        embed_pb2_grpc.add_EmbedServiceServicer_to_server(_Handlers(), server)

    async with AsyncExitStack() as stack:
        if kind == "own":
            port = await stack.enter_async_context(
                grpc_server(add, host="127.0.0.1", port=0, drain_seconds=0)
            )
        else:
            server = grpc.aio.server()
            add(server)
            port = server.add_insecure_port("127.0.0.1:0")
            await server.start()
            stack.push_async_callback(server.stop, 0)
        sys.stdout.write(f"{port}\n")
        sys.stdout.flush()
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    import uvloop

    uvloop.run(_serve(sys.argv[1]))
