"""Searches all the time, in a pod of its own: ``python prober_pod.py ROUTER QUERIES RATE``.

``QUERIES`` is a JSON file: for each listing that stays, its vector in base64 (float32, little-endian). On
SIGTERM it prints what came of it, as one line of JSON; before, such a line every few seconds.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
import signal
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import cycle
from pathlib import Path

import numpy as np

from shashin.client.coverage_text import coverage_line
from shashin.client.router import RouterClient
from shashin.errors import ShashinError

_REPORT_SECONDS = 2.0
_WITHIN_SECONDS = 6.0
_KEPT = 50


class Prober:
    """Counts what comes of searches."""

    def __init__(self, router: RouterClient) -> None:
        self._router = router
        self.counts: Counter[str] = Counter()
        self.problems: dict[str, _Times] = {}
        self.seconds: list[float] = []

    async def ask(self, listing_id: str, vector: np.ndarray) -> None:
        """Search for a listing by its own vector."""
        self.counts["queries"] += 1
        began = time.perf_counter()
        try:
            answer = await self._router.search(vector=vector, k=10, within_seconds=_WITHIN_SECONDS)
        except ShashinError as error:
            self._problem("failed", error.message)
            return
        finally:
            self.seconds.append(time.perf_counter() - began)
        if not answer.coverage.complete:
            failed = [f"{one.name}: {one.error}" for one in answer.failed_endpoints]
            self._problem("incomplete", "; ".join([coverage_line(answer.coverage), *failed]))
        elif listing_id not in [hit.listing_id for hit in answer.hits]:
            self._problem("missed", f"{listing_id} is not among the hits of a complete answer")

    def report(self) -> str:
        """Return what came of it until now."""
        ordered = sorted(self.seconds) or [0.0]
        return json.dumps(
            {
                **{of: self.counts[of] for of in ("queries", "failed", "incomplete", "missed")},
                "p50_ms": round(ordered[len(ordered) // 2] * 1000, 1),
                "p99_ms": round(ordered[int(len(ordered) * 0.99)] * 1000, 1),
                "problems": [f"{times}  {text}" for text, times in self.problems.items()],
            }
        )

    def _problem(self, of: str, text: str) -> None:
        self.counts[of] += 1
        # The same problem with other numbers is listed once.
        shape = re.sub(r"[0-9]+", "N", f"{of}: {' '.join(text.split())[:400]}")
        if shape in self.problems or len(self.problems) < _KEPT:
            self.problems.setdefault(shape, _Times()).add(time.time())


@dataclass
class _Times:
    """How often something happened, and when."""

    count: int = 0
    first: float = 0.0
    last: float = 0.0

    def add(self, at: float) -> None:
        self.first = self.first or at
        self.last, self.count = at, self.count + 1

    def __str__(self) -> str:
        first, last = (
            f"{datetime.fromtimestamp(at, UTC):%H:%M:%S.%f}"[:-3] for at in (self.first, self.last)
        )
        return f"{self.count} times, {first} to {last}"


def read_queries(path: Path) -> list[tuple[str, np.ndarray]]:
    """Return listings and their vectors."""
    return [
        (listing_id, np.frombuffer(base64.b64decode(text), "<f4"))
        for listing_id, text in json.loads(path.read_text()).items()
    ]


async def main(address: str, vectors: Sequence[tuple[str, np.ndarray]], rate: float) -> None:
    """Search at a rate, in queries per second, until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with RouterClient(address, wait_for_ready=True) as router:
        prober, running = Prober(router), set[asyncio.Task[None]]()
        started = next_report = time.monotonic()
        for number, (listing_id, vector) in enumerate(cycle(vectors)):
            # At fixed times, so that slow answers do not slow the questions.
            await asyncio.sleep(max(0.0, started + number / rate - time.monotonic()))
            task = asyncio.create_task(prober.ask(listing_id, vector))
            running.add(task)
            task.add_done_callback(running.discard)
            if time.monotonic() >= next_report:
                print(prober.report(), flush=True)  # noqa: T201
                next_report += _REPORT_SECONDS
            if stop.is_set():
                break
        await asyncio.gather(*running)
        print(prober.report(), flush=True)  # noqa: T201


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], read_queries(Path(sys.argv[2])), float(sys.argv[3])))
