"""A service as a real process, with its own settings, probes and log."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import aiohttp

from shashin.local.ports import free_port
from tests.support.waiting import until

ROOT = Path(__file__).parents[2]


class RunningService:
    """One process; ``grpc`` is its gRPC address, if it has one."""

    def __init__(
        self,
        name: str,
        kafka: str,
        settings: Mapping[str, object],
        *,
        log: Path,
        module: str = "",
        through: Sequence[str] = (),
        clock_ahead_seconds: float = 0.0,
    ) -> None:
        """``module`` is what is run; ``services.NAME`` if it is empty.

        ``through`` is another module, with its arguments, that runs it.
        """
        self.name = name
        if clock_ahead_seconds:
            through = ("tests.support.clock_ahead", str(clock_ahead_seconds))
        self._command = [sys.executable, "-m", *through, module or f"services.{name}"]
        self.http = f"127.0.0.1:{settings.get('http_port') or free_port()}"
        self.grpc = f"127.0.0.1:{settings.get('grpc_port') or free_port()}"
        rest_port = settings.get("rest_port") or free_port()
        self.rest = f"http://127.0.0.1:{rest_port}"
        """URL of REST, of a router."""
        values = {
            "kafka": kafka,
            "http_port": self.http.rpartition(":")[2],
            "grpc_port": self.grpc.rpartition(":")[2],
            "rest_port": rest_port,
            **settings,
        }
        own = {key: value for key, value in os.environ.items() if not key.startswith("SHASHIN_")}
        self._env = {
            **own,
            "OMP_NUM_THREADS": "1",
            **{f"SHASHIN_{key.upper()}": str(value) for key, value in values.items()},
        }
        log.mkdir(exist_ok=True)
        self._log = log / f"{name}-{self.http.rpartition(':')[2]}.log"
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        """Start the process; can be called again after it has ended."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: ASYNC220
                self._command,
                stdout=log,
                stderr=log,
                env=self._env,
                cwd=ROOT,
            )

    async def until_ready(self) -> None:
        """Wait until /readyz says so."""

        async def ready() -> bool:
            assert self.process.poll() is None, f"{self.name} ended:\n{self.log()}"
            return await self.get("readyz") is not None

        try:
            await until(ready, f"{self.name} is ready")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log()}") from None

    async def get(self, path: str) -> str | None:
        """Return what a page of its HTTP port says; None unless it answers 200."""
        status, text = await self._fetch(path)
        return text if status == 200 else None

    async def probe(self, path: str) -> str:
        """Return what a probe says, whatever its status; nothing if it does not answer."""
        _, text = await self._fetch(path)
        return text

    async def _fetch(self, path: str) -> tuple[int, str]:
        try:
            async with (
                aiohttp.ClientSession() as session,
                session.get(f"http://{self.http}/{path}") as response,
            ):
                return response.status, await response.text()
        except aiohttp.ClientError:
            return 0, ""

    async def metric(self, name: str) -> float:
        """Return the sum of a metric's samples."""
        page = await self.get("metrics") or ""
        lines = (line for line in page.splitlines() if not line.startswith("#"))
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The process; it has to be started."""
        assert self._process is not None
        return self._process

    def log(self) -> str:
        """Return all that it logged."""
        return self._log.read_text(errors="replace")

    async def kill(self) -> None:
        """Kill it with SIGKILL."""
        self.process.send_signal(signal.SIGKILL)
        await asyncio.to_thread(self.process.wait)

    async def stop(self) -> int:
        """Ask it to end; returns its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return await asyncio.to_thread(self.process.wait, 30)

    async def close(self) -> None:
        """Kill it if it is still running."""
        if self._process is not None and self._process.poll() is None:
            await self.kill()
