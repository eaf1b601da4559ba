"""Sends vector queries to a router from a process of its own, and prints what became of them as JSON.

``python -m bench.query_sender ADDRESS QUERIES.npy --seconds S (--clients N | --rate R)``. It shares the cores with
what it measures, so it is as lean as it can be: requests are encoded before, answers are not decoded, and a call
is a future and no task. A load generator that needs as much CPU time for a query as the router measures itself.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import grpc
import numpy as np
import uvloop

from bench.search.processes import SEARCH, requests_of
from shashin.rpc.client_connection import ClientCall
from shashin.rpc.peer_channel import PeerChannel

_CONNECTIONS = 4
_OK = "OK"


class Sender:
    """Sends queries over a few connections, and notes how long each took, by its status."""

    def __init__(self, address: str, requests: list[bytes], deadline: float) -> None:
        self._channels = [PeerChannel(address) for _ in range(_CONNECTIONS)]
        self._sends = itertools.cycle(
            [channel.unary_unary(SEARCH, bytes, bytes) for channel in self._channels]
        )
        self._requests = itertools.cycle(requests)
        self._deadline = deadline
        self._under_way: set[ClientCall] = set()
        self.took: list[float] = []
        """Seconds of each query that was answered."""
        self.statuses: Counter[str] = Counter()

    async def together(self, clients: int, seconds: float) -> float:
        """Send by so many clients, each one query after the other; returns how many seconds it took."""
        began = time.perf_counter()

        def again() -> None:
            if time.perf_counter() - began < seconds:
                self._send(time.perf_counter(), again)

        for _ in range(clients):
            again()
        await self._ended()
        return time.perf_counter() - began

    async def at_rate(self, rate: float, seconds: float) -> float:
        """Send so many queries a second, whatever becomes of those before; their time begins when they are due."""
        began = time.perf_counter()
        for number in range(int(rate * seconds)):
            due = began + number / rate
            if (early := due - time.perf_counter()) > 0:
                await asyncio.sleep(early)
            self._send(due, None)
        await self._ended()
        return seconds

    async def close(self) -> None:
        """Close the connections."""
        await asyncio.gather(*(channel.close() for channel in self._channels))

    async def _ended(self) -> None:
        while self._under_way:
            await asyncio.wait(self._under_way)

    def _send(self, due: float, then: Callable[[], None] | None) -> None:
        call = next(self._sends)(next(self._requests), timeout=self._deadline)
        self._under_way.add(call)
        call.add_done_callback(partial(self._note, due, then))

    def _note(self, due: float, then: Callable[[], None] | None, call: ClientCall) -> None:
        self._under_way.discard(call)
        error = call.exception()
        if error is None:
            self.took.append(time.perf_counter() - due)
            self.statuses[_OK] += 1
        else:
            self.statuses[_status_of(error)] += 1
        if then is not None:
            then()


def _status_of(error: BaseException) -> str:
    return error.code().name if isinstance(error, grpc.aio.AioRpcError) else type(error).__name__


async def _send(args: argparse.Namespace) -> None:
    requests = requests_of(np.load(args.queries))
    first = Sender(args.address, requests, args.deadline)
    await first.together(_CONNECTIONS, 0.2)
    await first.close()
    sender = Sender(args.address, requests, args.deadline)
    if args.rate:
        seconds = await sender.at_rate(args.rate, args.seconds)
    else:
        seconds = await sender.together(args.clients, args.seconds)
    await sender.close()
    print(json.dumps({"seconds": seconds, "took": sender.took, "statuses": sender.statuses}))


def main() -> None:
    """Send, and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.query_sender", description=__doc__)
    parser.add_argument("address")
    parser.add_argument("queries", type=Path)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--deadline", type=float, default=1.0, help="seconds of a query")
    load = parser.add_mutually_exclusive_group(required=True)
    load.add_argument("--clients", type=int)
    load.add_argument("--rate", type=float, help="queries a second")
    uvloop.run(_send(parser.parse_args()))


if __name__ == "__main__":
    main()
