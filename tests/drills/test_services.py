"""Alerts that are caused with a single service: each fires for its fault, says what it is, and ends with it."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.drills.alert_watch import watching
from tests.drills.scene import GROUPS
from tests.drills.service_drills import SERVICE_DRILLS, World


@pytest.mark.parametrize("name", SERVICE_DRILLS)
async def test_it_fires_for_its_fault_and_is_resolved_after_it(
    kafka: str, log_folder: Path, tmp_path: Path, name: str
) -> None:
    drill = SERVICE_DRILLS[name]
    async with AsyncExitStack() as stack:
        world = World(tmp_path, kafka, log_folder, stack)
        scene = await stack.enter_async_context(drill.scene(world))
        targets = {scene.service.name: scene.service.http}
        factors = {f"shashin.{group}": drill.factor for group in GROUPS}
        alerts = await stack.enter_async_context(
            watching(tmp_path / "prometheus", targets, factors)
        )
        # No router is a part of this.
        await alerts.until_quiet(besides="ShashinNoRouter")
        async with scene.fault(alerts):
            for fired in await alerts.until_firing(name):
                fired.check(says=drill.says)
        await alerts.until_resolved(name)
