"""Builds of a namespace of Kubernetes, for commands with ``--builds``."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from shashin.builds.records import RecordedBuild
from shashin.errors import ShashinError
from shashin.terminal.console import echo

if TYPE_CHECKING:
    from shashin.builds.kubernetes import KubernetesBuilds


@asynccontextmanager
async def opened(uri: str) -> AsyncIterator[KubernetesBuilds]:
    """Open the builds of a namespace."""
    # Imported here: the library of Kubernetes takes a second, and builds of a folder need none.
    from shashin.builds.kubernetes import opened_kubernetes_builds

    async with opened_kubernetes_builds(uri) as builds:
        yield builds


async def read_all(uri: str) -> tuple[Sequence[RecordedBuild], Mapping[str, ShashinError]]:
    """Return all builds, and why others cannot be read."""
    async with opened(uri) as builds:
        return await builds.read_all()


async def read(uri: str, name: str) -> RecordedBuild:
    """Return a build."""
    async with opened(uri) as builds:
        return await builds.read(name)


async def retry(uri: str, name: str) -> None:
    """Ask for another attempt."""
    async with opened(uri) as builds:
        await builds.retry(name, datetime.now(UTC))
    echo(f"build {name} will be run again: `shashin builds show {name} --builds {uri}` shows it")


async def cancel(uri: str, name: str) -> None:
    """Ask the controller to end a build."""
    async with opened(uri) as builds:
        await builds.cancel(name)
    echo(f"build {name} will be ended: `shashin builds show {name} --builds {uri}` shows it")


async def remove(uri: str, name: str) -> None:
    """Delete a build."""
    async with opened(uri) as builds:
        await builds.remove(name)
    echo(f"removed build {name}")
