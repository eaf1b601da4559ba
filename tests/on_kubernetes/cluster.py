"""The cluster under test: where it is, and what kubectl does with it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from shashin.errors import UserError
from shashin.local.ports import HOST, free_port
from tests.support.waiting import until

KUBECONFIG = "SHASHIN_TEST_KUBECONFIG"
REGISTRY = "SHASHIN_TEST_REGISTRY"
HOST_VARIABLE = "SHASHIN_TEST_HOST"
GCS_SERVER = "SHASHIN_TEST_GCS_SERVER"
STOP_API_SERVER = "SHASHIN_TEST_STOP_API_SERVER"
START_API_SERVER = "SHASHIN_TEST_START_API_SERVER"


@dataclass(frozen=True)
class Cluster:
    """A cluster, its registry, and how its pods reach this machine."""

    kubeconfig: Path
    registry: str
    """HOST:PORT, also for the nodes; spoken to without TLS."""
    host: str
    """Address of this machine, as pods reach it."""
    stop_api_server: str
    """Shell command that makes the API server stop to answer; empty if that is not possible."""
    start_api_server: str
    """Shell command that makes it answer again."""

    @classmethod
    def from_environment(cls) -> Cluster:
        """Return the cluster that the environment names.

        Raises:
            UserError: naming what is missing.
        """
        missing = [
            v for v in (KUBECONFIG, REGISTRY, HOST_VARIABLE, GCS_SERVER) if not os.environ.get(v)
        ]
        if missing:
            raise UserError(
                f"{', '.join(missing)} not set: CONTRIBUTING.md says what a cluster for tests needs"
            )
        for program in ("kubectl", "docker"):
            if shutil.which(program) is None:
                raise UserError(f"{program} is not installed, or not in PATH")
        return cls(
            Path(os.environ[KUBECONFIG]),
            os.environ[REGISTRY],
            os.environ[HOST_VARIABLE],
            os.environ.get(STOP_API_SERVER, ""),
            os.environ.get(START_API_SERVER, ""),
        )

    async def kubectl(self, *arguments: str, check: bool = True) -> str:
        """Run kubectl; returns its output.

        Raises:
            UserError: with what it said, if it failed and ``check``.
        """
        return await run("kubectl", *arguments, check=check, KUBECONFIG=str(self.kubeconfig))

    @asynccontextmanager
    async def forwarded(self, namespace: str, target: str, port: int) -> AsyncIterator[str]:
        """Forward a port of a pod or Service; gives the address on this machine."""
        local = free_port()
        process = await asyncio.create_subprocess_exec(
            "kubectl",
            *("port-forward", "--namespace", namespace, target, f"{local}:{port}"),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            env={**os.environ, "KUBECONFIG": str(self.kubeconfig)},
        )
        try:
            await until(lambda: _accepts(local), f"{target} is forwarded")
            yield f"{HOST}:{local}"
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            await process.wait()


async def run(*command: str, check: bool = True, **environment: str) -> str:
    """Run a program; returns its output.

    Raises:
        UserError: with what it said, if it failed and ``check``.
    """
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, **environment},
    )
    output, _ = await process.communicate()
    if process.returncode and check:
        raise UserError(f"`{' '.join(command)}` failed: {output.decode()[-3000:]}")
    return output.decode()


async def _accepts(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection(HOST, port)
    except OSError:
        return False
    writer.close()
    return True
