"""fake-gcs-server as a real process on the loopback."""

from __future__ import annotations

import asyncio
import os
import subprocess
from pathlib import Path

import aiohttp

from shashin.local.ports import HOST, free_port
from tests.support.waiting import until

SERVER_VARIABLE = "SHASHIN_TEST_GCS_SERVER"
"""Path of the fake-gcs-server binary; without it, tests that need it are skipped."""

BUCKET = "shashin-test"


class FakeGcs:
    """One server; without ``root`` its objects are in memory and lost when it is killed."""

    def __init__(self, log: Path, *, root: Path | None = None, host: str = HOST) -> None:
        self.port = free_port(host)
        self.url = f"http://{host}:{self.port}"
        self._log = log
        self._root = root
        backend = ["memory"] if root is None else ["filesystem", "-filesystem-root", str(root)]
        self._command = [
            os.environ[SERVER_VARIABLE],
            *("-scheme", "http", "-host", host, "-port", str(self.port)),
            # What it answers to requests with another name, such as in the locations of uploads.
            *("-public-host", f"{host}:{self.port}", "-external-url", self.url),
            *("-log-level", "error", "-backend", *backend),
        ]
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        """Start it and wait until it is ready; can be called again after a kill."""
        with self._log.open("ab") as log:
            process = subprocess.Popen(  # noqa: ASYNC220
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self._process = process

        async def answers() -> bool:
            assert process.poll() is None, f"fake-gcs-server ended:\n{self._log.read_text()}"
            try:
                async with (
                    aiohttp.ClientSession() as session,
                    session.get(f"{self.url}/_internal/healthcheck") as response,
                ):
                    return response.status == 200
            except aiohttp.ClientError:
                return False

        await until(answers, "fake-gcs-server answers")

    async def make_bucket(self) -> None:
        """Make the bucket that tests write to."""
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{self.url}/storage/v1/b", json={"name": BUCKET}) as response,
        ):
            response.raise_for_status()

    async def kill(self) -> None:
        """Kill it with SIGKILL."""
        if self._process is not None:
            self._process.kill()
            await asyncio.to_thread(self._process.wait)

    def files_of(self, name: str) -> list[Path]:
        """Return the files that hold objects of this name, where they are kept in files."""
        assert self._root is not None
        return [path for path in self._root.rglob(name) if path.is_file()]
