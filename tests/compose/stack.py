"""The stack of docker-compose.yml under a name and ports of the test's own, and what is done to it."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from compose.stack import FILE, compose_command, ports
from shashin.errors import UserError
from shashin.local.ports import free_port

ROOT = Path(__file__).parents[2]
PROJECT = "shashin-compose-test"
_UNITS = {"B": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}


@dataclass
class Stack:
    """One project of Docker Compose."""

    environment: dict[str, str] = field(default_factory=dict)
    ports: dict[str, int] = field(default_factory=dict)
    """By the variable of each."""

    @classmethod
    def with_free_ports(cls) -> Stack:
        """Return the test's project, on ports that are free now."""
        variables = ports(FILE.read_text(encoding="utf-8"), {})
        found = {name: free_port() for name in variables}
        environment = {
            **os.environ,
            **{name: str(port) for name, port in found.items()},
            "COMPOSE_PROJECT_NAME": PROJECT,
            # So that a shard is sealed while the test runs.
            "SHASHIN_COMPOSE_BUCKET_SECONDS": "30",
        }
        return cls(environment, found)

    async def compose(self, *arguments: str) -> str:
        """Run Docker Compose.

        Raises:
            UserError: if there is none, or it fails; with the last lines of what it said.
        """
        command = compose_command()
        if command is None:
            raise UserError("Docker Compose is missing: install its plugin, or docker-compose 1.29")
        return await self.run(*command, "--profile", "observability", *arguments)

    async def run(self, *command: str) -> str:
        """Run a command in the project's environment; returns its output, raises as ``compose``."""
        process = await asyncio.create_subprocess_exec(
            *command,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            cwd=ROOT,
            env=self.environment,
        )
        output, errors = await process.communicate()
        if process.returncode:
            said = "\n".join(errors.decode(errors="replace").splitlines()[-15:])
            raise UserError(f"{' '.join(command)} failed with {process.returncode}:\n{said}")
        return output.decode()

    async def containers(self) -> list[dict[str, Any]]:
        """Return Docker's documents of all containers, also ended ones."""
        label = f"label=com.docker.compose.project={PROJECT}"
        ids = (await self.run("docker", "ps", "-aq", "--filter", label)).split()
        if not ids:
            return []
        found: list[dict[str, Any]] = json.loads(await self.run("docker", "inspect", *ids))
        return found

    async def waiting(self) -> list[str]:
        """Return the services that are not ready, with their state."""
        found = []
        for container in await self.containers():
            state = container["State"]
            health = state.get("Health", {}).get("Status")
            done = health is None and state["Status"] == "exited" and not state["ExitCode"]
            if health != "healthy" and not done:
                found.append(f"{service_of(container)} ({health or state['Status']})")
        return sorted(found)

    async def kill(self, service: str) -> None:
        """End a container's process with SIGKILL, as the kernel does for lack of memory.

        Docker does not restart what `docker kill` ends, so that needs root.
        """
        (container,) = [c for c in await self.containers() if service_of(c) == service]
        os.kill(container["State"]["Pid"], signal.SIGKILL)

    async def restarts(self, service: str) -> int:
        """Return how often Docker has restarted a service's container."""
        (container,) = [c for c in await self.containers() if service_of(c) == service]
        return int(container["RestartCount"])

    async def memory(self) -> dict[str, int]:
        """Return the memory of each running container, in bytes."""
        ids = [c["Id"] for c in await self.containers() if c["State"]["Running"]]
        rows = await self.run("docker", "stats", "--no-stream", "--format", "{{json .}}", *ids)
        found = {}
        for row in map(json.loads, rows.splitlines()):
            matched = re.match(r"([\d.]+)(\w+)", row["MemUsage"])
            assert matched, row
            found[row["Name"]] = int(float(matched[1]) * _UNITS[matched[2]])
        return found

    async def logs(self, services: Sequence[str]) -> str:
        """Return the last lines of the services' logs."""
        return await self.compose("logs", "--no-color", "--tail", "15", *services)


def service_of(container: dict[str, Any]) -> str:
    """Return the service of a container."""
    return str(container["Config"]["Labels"]["com.docker.compose.service"])
