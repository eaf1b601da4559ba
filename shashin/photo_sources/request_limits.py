"""Limits on requests to photo sources: in total and per host, with pauses that a host asks for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from shashin.errors import PhotoUnavailable

MAX_PAUSE_SECONDS = 20.0
"""Longest pause that a host can ask for: less than the time without progress that fails /livez."""

DEFAULT_PAUSE_SECONDS = 1.0
"""Pause after a refusal that names none."""

_FAILURES_OF_A_DEAD_HOST = 3


@dataclass(eq=False)
class _Host:
    slots: asyncio.Semaphore
    users: int = 0
    """Requests under way or waiting."""
    resumes_at: float = 0.0
    """When a pause ends, by the loop's clock."""
    failures: int = 0
    """Requests in a row that were not answered."""
    outages: int = 0
    """How often it was found dead."""


class RequestLimits:
    """Admits requests; those that wait for a slow host keep none of another host's waiting."""

    def __init__(self, *, total: int, per_host: int) -> None:
        self._slots = asyncio.Semaphore(total)
        self._per_host = per_host
        self._hosts: dict[str, _Host] = {}

    @asynccontextmanager
    async def request(self, name: str) -> AsyncIterator[None]:
        """Admit one request to a host; waits for its slot, and for the end of a pause.

        Raises:
            PhotoUnavailable: when the host turned out to be dead while this request waited. So
                requests wait for one timeout of a dead host, and not one after another.
        """
        now = asyncio.get_running_loop().time
        host = self._hosts.setdefault(name, _Host(asyncio.Semaphore(self._per_host)))
        outages = host.outages
        host.users += 1
        try:
            async with host.slots:
                if host.outages != outages:
                    raise PhotoUnavailable(f"{name} does not respond: other requests failed")
                # A pause may be extended while this request waits for its end.
                while (wait := host.resumes_at - now()) > 0:  # noqa: ASYNC110
                    await asyncio.sleep(wait)
                async with self._slots:
                    yield
        finally:
            host.users -= 1
            if not host.users:
                self._forget_idle_hosts(now())

    def _forget_idle_hosts(self, now: float) -> None:
        for name, host in list(self._hosts.items()):
            if not host.users and host.resumes_at <= now:
                del self._hosts[name]

    def pause(self, name: str, seconds: float | None) -> None:
        """Send a host nothing for a while, as it asked; at most ``MAX_PAUSE_SECONDS``."""
        wait = DEFAULT_PAUSE_SECONDS if seconds is None else min(seconds, MAX_PAUSE_SECONDS)
        if host := self._hosts.get(name):
            host.resumes_at = max(host.resumes_at, asyncio.get_running_loop().time() + wait)

    def answered(self, name: str) -> None:
        """Note that a host responded."""
        if host := self._hosts.get(name):
            host.failures = 0

    def unanswered(self, name: str) -> None:
        """Note that a host did not respond; after several in a row, those that wait for it fail."""
        if host := self._hosts.get(name):
            host.failures += 1
            if host.failures >= _FAILURES_OF_A_DEAD_HOST:
                host.failures = 0
                host.outages += 1
