"""Alerts that are caused in a whole system: each fires for its fault, says what it is, and ends with it."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.drills.alert_watch import AlertWatch, watching
from tests.drills.scene import SystemScene
from tests.drills.system_drills import SYSTEM_DRILLS
from tests.support.running_system import ConnectedSystem


@pytest.mark.parametrize("name", SYSTEM_DRILLS)
async def test_it_fires_for_its_fault_and_is_resolved_after_it(
    system: ConnectedSystem, tmp_path: Path, name: str
) -> None:
    drill = SYSTEM_DRILLS[name]
    rows = system.system.processes()
    targets = {row.name: row.addresses["http"] for row in rows if "http" in row.addresses}
    async with AsyncExitStack() as stack:
        alerts: AlertWatch = await stack.enter_async_context(
            watching(tmp_path / "prometheus", targets, drill.all_factors())
        )
        scene = SystemScene(system, alerts)
        if drill.load is not None:
            await stack.enter_async_context(drill.load(scene))
        await alerts.until_quiet()
        async with drill.fault(scene):
            for fired in await alerts.until_firing(name):
                fired.check(says=drill.says)
        await alerts.until_resolved(name)
