"""A test service as a process: ``python service_process.py`` runs it."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
from pathlib import Path
from typing import Any

import structlog
from pydantic import Field

from shashin.errors import KafkaUnavailable
from shashin.runtime.logging import get_logger
from shashin.runtime.scope import Loop, LoopScope, ServiceScope
from shashin.runtime.service import run_service
from shashin.runtime.settings import ServiceSettings
from tests.support.waiting import until

ROOT = Path(__file__).parents[2]


class EchoSettings(ServiceSettings):
    """Settings of the service."""

    mood: str = Field(
        "well", description="well, named-error, unexpected-error, stuck or talkative."
    )
    greeting: str = Field(description="Is logged.")


async def serve(scope: ServiceScope[EchoSettings]) -> None:
    """Log in every way there is, then do as values."""
    get_logger("echo").info("greeting", text=scope.settings.greeting, odd=Path("a\nb"))
    logging.getLogger("a.library").warning("a library's %s", "line\nbreak", extra={"size": 3})
    logging.getLogger("aiokafka").info("reconnects again")
    structlog.contextvars.bind_contextvars(partition=7)

    async def work(loop: LoopScope) -> None:
        if scope.settings.mood == "named-error":
            raise KafkaUnavailable("kafka is gone")
        if scope.settings.mood == "unexpected-error":
            raise ZeroDivisionError("nobody expected this")
        while scope.settings.mood == "talkative" and await loop.sleep(0.02):
            get_logger("services.echo").debug("working", key="own")
            logging.getLogger("botocore.auth").debug("signature: S3CRET")
        await loop.until_stopped()
        if scope.settings.mood == "stuck":
            await asyncio.Event().wait()

    await scope.run(Loop("work", work))


class ServiceProcess:
    """The process as a test sees it."""

    def __init__(self, **settings: str) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("SHASHIN")}
        values = {f"SHASHIN_{name.upper()}": value for name, value in settings.items()}
        self._env = {**kept, **values, "PYTHONPATH": str(ROOT)}
        self._errors = b""
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Future[None] | None = None

    async def __aenter__(self) -> ServiceProcess:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            __file__,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            env=self._env,
        )
        self._reading = asyncio.ensure_future(self._read())
        return self

    async def __aexit__(self, *_exc: object) -> None:
        assert self._process is not None
        if self._process.returncode is None:
            self._process.kill()
        await self.exit_code()

    async def _read(self) -> None:
        assert self._process is not None
        assert self._process.stderr is not None
        async for line in self._process.stderr:
            self._errors += line

    @property
    def errors(self) -> str:
        """All that it wrote to stderr so far."""
        return self._errors.decode()

    def log(self) -> list[dict[str, Any]]:
        """Return its log, of which every line has to be one JSON object."""
        whole_lines = self.errors.rpartition("\n")[0].split("\n")
        parsed = [json.loads(line) for line in whole_lines if line]
        assert all(isinstance(line, dict) for line in parsed)
        return parsed

    async def line(self, event: str) -> dict[str, Any]:
        """Wait for a log line and return it."""

        def found() -> list[dict[str, Any]]:
            assert self._process is not None
            lines = [line for line in self.log() if line["event"] == event]
            assert lines or self._process.returncode is None, f"it ended:\n{self.errors}"
            return lines

        lines: list[dict[str, Any]] = await until(found, f"{event!r} is logged")
        return lines[0]

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    async def exit_code(self) -> int:
        """Wait until it ends and all of its log is read."""
        assert self._process is not None
        assert self._reading is not None
        await self._reading
        return await self._process.wait()


if __name__ == "__main__":
    run_service("echo", EchoSettings, serve)
