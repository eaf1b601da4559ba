"""The system of a state folder: the progress of a start, and its imports."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from shashin.local.processes import Plan, ProcessRow, ProcessSpec, plan_path
from shashin.local.restart import Restart
from shashin.local.system import System, waiting_for
from shashin.runtime.json_file import write_json

ROOT = Path(__file__).parents[3]
READY = ProcessRow("router", "ready")


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([], ""),
        ([READY], ""),
        ([READY, ProcessRow("embedder", "starting")], "waiting for embedder"),
        (
            [ProcessRow("embedder", "starting"), ProcessRow("indexer", "waiting")],
            "waiting for embedder, indexer",
        ),
        ([ProcessRow(name, "starting") for name in "abcd"], ""),
    ],
)
def test_a_start_names_the_few_services_that_it_still_waits_for(
    rows: list[ProcessRow], says: str
) -> None:
    assert waiting_for(rows) == says


def test_a_start_says_why_what_it_waits_for_was_restarted() -> None:
    restarted = ProcessRow(
        "embedder",
        "starting",
        restarts=1,
        last_restart=Restart("it did not start within 300 s", 0.0),
    )
    assert waiting_for([restarted]) == (
        "waiting for embedder, restarted because it did not start within 300 s"
    )


@pytest.mark.parametrize(
    ("asked", "url"),
    [
        ({}, "http://127.0.0.1:8500/"),
        ({"SHASHIN_TLS_CERTIFICATE_FILE": "router.pem"}, "https://127.0.0.1:8500/"),
    ],
)
def test_the_page_has_a_url_by_which_a_browser_reaches_it(
    asked: dict[str, str], url: str, tmp_path: Path
) -> None:
    router = ProcessSpec("router", ("router",), addresses={"rest": "127.0.0.1:8500"})
    write_json(plan_path(tmp_path), Plan((router,), asked=asked).document())
    assert System(tmp_path).page_url() == url


def test_the_system_of_one_machine_needs_neither_the_command_nor_a_terminal() -> None:
    loads = (
        "import pkgutil, sys, shashin.local\n"
        "for module in pkgutil.iter_modules(shashin.local.__path__, 'shashin.local.'):\n"
        "    __import__(module.name)\n"
        "print([n for n in sys.modules if n.startswith(('shashin.cli', 'shashin.terminal'))])"
    )
    found = subprocess.run(
        [sys.executable, "-c", loads], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "[]"
