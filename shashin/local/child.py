"""A child process that cannot outlive its parent, and whose output goes to a bounded log."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from shashin.local.identity import ProcessIdentity
from shashin.local.log_file import BoundedLog
from shashin.runtime.parent_death import die_with_parent

_POLL_SECONDS = 0.1
_CHUNK = 64 * 1024


class Child:
    """One running process. Start it from the main thread: it dies with the thread that starts it."""

    def __init__(
        self, argv: Sequence[str], *, env: Mapping[str, str], log: BoundedLog, cwd: Path
    ) -> None:
        self._log = log
        self._output, output = os.pipe()
        os.set_blocking(self._output, False)
        try:
            self._process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=dict(env),
                cwd=cwd,
                process_group=0,
                preexec_fn=die_with_parent(),  # noqa: PLW1509 - one thread, and prctl is bound
            )
        except BaseException:
            os.close(self._output)
            raise
        finally:
            os.close(output)
        self.started = time.monotonic()
        self.identity = ProcessIdentity.of(self._process.pid)
        asyncio.get_running_loop().add_reader(self._output, self._take_output)

    @property
    def pid(self) -> int:
        """Its pid."""
        return self._process.pid

    def exit_code(self) -> int | None:
        """Return its exit code, negative for a signal; None while it runs."""
        return self._process.poll()

    async def exited(self) -> int:
        """Wait until it ends; returns its exit code, negative for a signal."""
        while (code := self._process.poll()) is None:  # noqa: ASYNC110 - there is no notification
            await asyncio.sleep(_POLL_SECONDS)
        return code

    async def end(self, grace: float) -> None:
        """Send SIGTERM, and SIGKILL to its process group if it has not exited within ``grace`` seconds."""
        self._send(signal.SIGTERM)
        with suppress(TimeoutError):
            await asyncio.wait_for(self.exited(), grace)
        self._send(signal.SIGKILL)
        await self.exited()

    def close(self) -> None:
        """Kill what is left of its process group, and keep the last output."""
        self._send(signal.SIGKILL)
        self._take_output()
        with suppress(ValueError):
            asyncio.get_running_loop().remove_reader(self._output)
        os.close(self._output)

    def _send(self, number: int) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)

    def _take_output(self) -> None:
        with suppress(BlockingIOError):
            while data := os.read(self._output, _CHUNK):
                self._log.write(data)
            # EOF: every writer has exited.
            asyncio.get_running_loop().remove_reader(self._output)
