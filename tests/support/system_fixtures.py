"""A fixture of a running system, for the conftest.py that imports it and has ``running_system``."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.support.running_system import ConnectedSystem, RunningSystem


@pytest.fixture
async def system(running_system: RunningSystem) -> AsyncIterator[ConnectedSystem]:
    """The whole system, healthy again after earlier tests."""
    running_system.resume_supervisor()
    await running_system.until_well()
    async with running_system.connected() as connected:
        await connected.until_versions({li.listing_id: 1 for li in running_system.corpus})
        yield connected
