"""Failpoints: disabled without the variable; with it, each file causes one crash."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from shashin.runtime.failpoints import POINTS, VARIABLE

ROOT = Path(__file__).parents[3]
PASSES = """
from shashin.runtime import failpoints
failpoints.enable("router")
failpoints.failpoint("after-embed")
print("passed")
"""


def passes(environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PASSES],
        env={**os.environ, **environment},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_without_the_variable_nothing_happens() -> None:
    assert passes({VARIABLE: ""}).stdout == "passed\n"


def test_a_file_is_one_kill_of_the_service_that_it_names(tmp_path: Path) -> None:
    other = tmp_path / "indexer.after-embed"
    other.touch()
    assert passes({VARIABLE: str(tmp_path)}).stdout == "passed\n"
    armed = tmp_path / "router.after-embed"
    armed.touch()
    killed = passes({VARIABLE: str(tmp_path)})
    assert (killed.returncode, killed.stdout) == (-9, "")
    assert not armed.exists()
    assert passes({VARIABLE: str(tmp_path)}).stdout == "passed\n"
    assert other.exists()


@pytest.mark.parametrize("point", sorted({p for points in POINTS.values() for p in points}))
def test_every_failpoint_is_in_the_code(point: str) -> None:
    call = re.compile(rf'failpoint\("{point}"\)')
    sources = [*ROOT.glob("shashin/**/*.py"), *ROOT.glob("services/**/*.py")]
    assert any(call.search(source.read_text()) for source in sources)
