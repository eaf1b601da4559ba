"""Vector queries sent to a router, as many as it answers or at a rate.

By ghz where it is installed, a load generator in Go: a client in Python needs almost half as much CPU time for
a query as the router does, on the same cores, and falls behind at the rates that are of interest.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import os
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import grpc

from bench.figures import percentile
from bench.search.data import K, Vectors
from bench.search.processes import SEARCH, requests_of, search_together
from shashin.workload.load.generator import Generator, OpenLoop
from shashin.workload.load.recorder import OK, Recorder

_PROTO = Path(__file__).parents[1] / "proto"
_CALL = "shashin.v1.SearchService.Search"
_CONNECTIONS = 4
_WORKERS = 200
"""That send what is due; they do not wait for answers."""


@dataclass(frozen=True)
class Seen:
    """What became of the queries that were sent."""

    seconds: float
    p99: float
    """Milliseconds, of those that were answered."""
    sent: int
    ok: int
    shed: int
    """RESOURCE_EXHAUSTED."""

    @property
    def answered(self) -> float:
        """A second."""
        return self.ok / self.seconds

    @property
    def refused(self) -> float:
        """Share that was shed."""
        return self.shed / self.sent

    @property
    def others(self) -> float:
        """Share that failed in another way, or was not sent."""
        return 1 - (self.ok + self.shed) / self.sent


class Load(Protocol):
    """Sends the same queries again and again."""

    async def together(self, address: str, clients: int, seconds: float) -> Seen:
        """Send by so many clients, each one query after the other."""
        ...

    async def at_rate(self, address: str, rate: float, seconds: float, *, deadline: float) -> Seen:
        """Send so many queries a second, whatever becomes of those before."""
        ...


def load_of(queries: Vectors, scratch: Path) -> Load:
    """Return what sends queries, (n, dimensions): ghz if SHASHIN_BENCH_GHZ or the PATH has it."""
    ghz = os.environ.get("SHASHIN_BENCH_GHZ") or shutil.which("ghz")
    return PythonClients(queries) if ghz is None else Ghz(ghz, scratch, queries)


class PythonClients:
    """Clients on the event loop of this process."""

    def __init__(self, queries: Vectors) -> None:
        self._requests = requests_of(queries)

    async def together(self, address: str, clients: int, seconds: float) -> Seen:
        """Send by so many clients, each one query after the other."""
        searched = await search_together(address, self._requests, clients, seconds)
        p99 = 1e3 * percentile(searched.took, 0.99)
        count = len(searched.took)
        return Seen(searched.seconds, p99, sent=count, ok=count, shed=0)

    async def at_rate(self, address: str, rate: float, seconds: float, *, deadline: float) -> Seen:
        """Send so many queries a second; their latency is from when they were due."""
        recorder, numbers = Recorder(["search"]), itertools.count()
        async with grpc.aio.insecure_channel(address) as channel:
            call: Any = channel.unary_unary(SEARCH)

            async def search() -> str:
                try:
                    await call(
                        self._requests[next(numbers) % len(self._requests)], timeout=deadline
                    )
                except grpc.aio.AioRpcError as error:
                    return error.code().name
                return OK

            due = (number / rate for number in range(int(rate * seconds)))
            await Generator(recorder).run(OpenLoop("search", due, search))
        total = recorder.kinds["search"].total
        return Seen(
            seconds,
            1e3 * (total.latency.percentile(0.99) or 0.0),
            sent=total.outcomes.total(),
            ok=total.outcomes[OK],
            shed=total.outcomes["RESOURCE_EXHAUSTED"],
        )


class Ghz:
    """ghz, as a process; the latency of its queries is from when they were sent."""

    def __init__(self, path: str, scratch: Path, queries: Vectors) -> None:
        self._path = path
        self._data = scratch / "queries.json"
        requests = [
            {"vector": base64.b64encode(query.astype("<f4").tobytes()).decode(), "k": K}
            for query in queries
        ]
        self._data.write_text(json.dumps(requests), encoding="utf-8")

    async def together(self, address: str, clients: int, seconds: float) -> Seen:
        """Send by so many clients, each one query after the other."""
        return await self._run(address, seconds, "--concurrency", str(clients))

    async def at_rate(self, address: str, rate: float, seconds: float, *, deadline: float) -> Seen:
        """Send so many queries a second, whatever becomes of those before.

        Raises:
            RuntimeError: when it sent fewer.
        """
        seen = await self._run(
            address,
            seconds,
            *("--async", "--rps", str(round(rate)), "--concurrency", str(_WORKERS)),
            *("--timeout", f"{round(1000 * deadline)}ms"),
        )
        if seen.sent < 0.95 * rate * seconds:
            raise RuntimeError(
                f"ghz sent {seen.sent} of {rate * seconds:.0f} queries: it fell behind"
            )
        return seen

    async def _run(self, address: str, seconds: float, *options: str) -> Seen:
        process = await asyncio.create_subprocess_exec(
            *(self._path, "--insecure", "--call", _CALL),
            *("--import-paths", str(_PROTO), "--proto", str(_PROTO / "shashin/v1/search.proto")),
            *("--data-file", str(self._data), "--format", "json"),
            *("--connections", str(_CONNECTIONS), "--duration", f"{seconds:g}s"),
            *("--duration-stop", "wait", *options, address),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        output, errors = await process.communicate()
        if process.returncode:
            raise RuntimeError(f"ghz failed: {errors.decode()}")
        details = json.loads(output)["details"]
        took = [detail["latency"] / 1e6 for detail in details if detail["status"] == "OK"]
        statuses = Counter(detail["status"] for detail in details)
        return Seen(
            seconds,
            percentile(took, 0.99) if took else 0.0,
            sent=len(details),
            ok=len(took),
            shed=statuses["ResourceExhausted"],
        )
