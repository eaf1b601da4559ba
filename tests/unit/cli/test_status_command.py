"""``shashin status`` without a reachable router: what the process table shows."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from shashin.cli.app import app
from shashin.local.identity import ProcessIdentity
from shashin.local.processes import processes_path
from shashin.local.restart import Restart
from shashin.runtime.json_file import write_json

LAST = Restart("it failed its liveness probe for 31 s (consumer made no progress for 60 s)", 1.75e9)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A state folder whose router was restarted, and is ready again."""
    here = ProcessIdentity.of(os.getpid())
    assert here is not None

    def entry(name: str, **more: Any) -> dict[str, Any]:
        return {"name": name, "status": "ready", **here.document(), **more}

    processes = [
        entry("router", restarts=1, last_restart=LAST.document()),
        entry("indexer", restarts=0, last_restart=None),
        entry("embedder", restarts=2),
    ]
    write_json(processes_path(tmp_path), {"supervisor": here.document(), "processes": processes})
    return tmp_path


def shown(*args: str, state: Path) -> str:
    result = CliRunner().invoke(app, ["status", *args], env={"SHASHIN_STATE": str(state)})
    assert result.exit_code == 1, "there is no router to ask"
    return result.stdout


def test_the_reason_of_the_last_restart_is_shown_after_the_process_is_ready_again(
    state: Path,
) -> None:
    lines = shown(state=state).splitlines()
    restarted = [line for line in lines if "was last restarted" in line]
    assert restarted == [
        f"router was last restarted at 2025-06-15 15:06:40 UTC because {LAST.reason}"
    ]


def test_the_reason_of_the_last_restart_is_in_the_json(state: Path) -> None:
    document = json.loads(shown("--json", state=state))
    restarts = {p["name"]: p["last_restart"] for p in document["processes"]}
    assert restarts == {
        "router": {"reason": LAST.reason, "at": "2025-06-15T15:06:40+00:00"},
        "indexer": None,
        "embedder": None,
        "supervisor": None,
    }
