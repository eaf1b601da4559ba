"""Alerts that are caused with a controller: each fires for its fault, says what it is, and ends with it."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.drills.alert_watch import watching
from tests.drills.controller_drills import CONTROLLER_DRILLS, ControllerScene
from tests.drills.scene import GROUPS, USUAL_FACTOR
from tests.support.storing_api_server import storing_api_server


@pytest.mark.parametrize("name", CONTROLLER_DRILLS)
async def test_it_fires_for_its_fault_and_is_resolved_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    drill = CONTROLLER_DRILLS[name]
    async with AsyncExitStack() as stack:
        api = await stack.enter_async_context(storing_api_server())
        kubeconfig = api.kubeconfig(tmp_path)
        monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
        scene = ControllerScene(tmp_path, api, kubeconfig, stack)
        controller = await scene.start()
        factors = {f"shashin.{group}": USUAL_FACTOR for group in GROUPS}
        alerts = await stack.enter_async_context(
            watching(tmp_path / "prometheus", {"controller": controller.http}, factors)
        )
        # No router is a part of this.
        await alerts.until_quiet(besides="ShashinNoRouter")
        async with drill.fault(scene):
            for fired in await alerts.until_firing(name):
                fired.check(says=drill.says)
        await alerts.until_resolved(name)
