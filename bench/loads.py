"""Vector queries sent to a router by a process of its own: as many as it answers, or at a rate."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.figures import percentile
from bench.search.data import Vectors

_SHED = "RESOURCE_EXHAUSTED"
_NOT_FAILED = {"OK", _SHED}


@dataclass(frozen=True)
class Seen:
    """What became of the queries that were sent."""

    seconds: float
    took: Sequence[float]
    """Seconds of each query that was answered, from when it was due."""
    statuses: Mapping[str, int]
    """How many queries ended with each status."""

    @property
    def p99(self) -> float:
        """Milliseconds."""
        return 1e3 * percentile(list(self.took), 0.99) if self.took else 0.0

    @property
    def answered(self) -> float:
        """A second."""
        return len(self.took) / self.seconds

    @property
    def refused(self) -> float:
        """Share that was shed."""
        return self.statuses.get(_SHED, 0) / self._sent

    @property
    def others(self) -> float:
        """Share that failed in another way."""
        failed = sum(count for status, count in self.statuses.items() if status not in _NOT_FAILED)
        return failed / self._sent

    @property
    def _sent(self) -> int:
        return sum(self.statuses.values())


class Load:
    """Sends the same queries again and again."""

    def __init__(self, queries: Vectors, scratch: Path) -> None:
        """Send ``queries``, (n, dimensions)."""
        self._queries = scratch / "queries.npy"
        np.save(self._queries, queries)

    async def together(self, address: str, clients: int, seconds: float) -> Seen:
        """Send by so many clients, each one query after the other."""
        return await self._send(address, "--clients", str(clients), "--seconds", str(seconds))

    async def at_rate(self, address: str, rate: float, seconds: float, *, deadline: float) -> Seen:
        """Send so many queries a second, whatever becomes of those before."""
        return await self._send(
            *(address, "--rate", str(rate), "--seconds", str(seconds), "--deadline", str(deadline))
        )

    async def _send(self, address: str, *options: str) -> Seen:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "bench.query_sender", address, str(self._queries), *options),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        output, errors = await process.communicate()
        if process.returncode:
            raise RuntimeError(f"queries could not be sent: {errors.decode()}")
        return Seen(**json.loads(output))
