"""Without the catalogue package, commands that need it say in one line what to install."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]

NO_CATALOGUE = """
import sys
class NoCatalogue:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "shashin_catalogue":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, NoCatalogue())
"""
"""Makes the catalogue unimportable, as if it were not installed."""

INSTALL = "run `pip install ./catalogue` in a checkout of shashin's repository"


def shashin(*arguments: object, state: Path) -> subprocess.CompletedProcess[str]:
    """Run the command where the catalogue is not installed."""
    hidden = state.parent / "hidden"
    hidden.mkdir()
    (hidden / "sitecustomize.py").write_text(NO_CATALOGUE, encoding="utf-8")
    own = {key: value for key, value in os.environ.items() if not key.startswith("SHASHIN_")}
    return subprocess.run(
        [sys.executable, "-m", "shashin.cli", *map(str, arguments)],
        env={**own, "SHASHIN_STATE": str(state), "PYTHONPATH": f"{hidden}{os.pathsep}{ROOT}"},
        cwd=state.parent,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    "command",
    [["demo"], ["model", "train", "--products", "2"], ["model", "eval", "--products", "2"]],
    ids=" ".join,
)
def test_what_renders_photos_says_in_one_line_what_to_install(
    command: list[str], tmp_path: Path
) -> None:
    ended = shashin(*command, state=tmp_path / "state")
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert line.startswith("error: the package shashin_catalogue, ")
    assert INSTALL in line
    assert ended.stdout == ""
    assert not (tmp_path / "state").exists(), "nothing was started"


def test_the_demo_suggests_your_own_photos(tmp_path: Path) -> None:
    ended = shashin("demo", state=tmp_path / "state")
    assert ended.stderr.rstrip("\n").endswith("or use your own photos with --photos")


def test_the_demo_of_your_own_photos_needs_no_catalogue(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    ended = shashin("demo", "--photos", tmp_path / "photos", state=tmp_path / "state")
    assert ended.returncode == 2
    assert "shashin_catalogue" not in ended.stderr
    assert "no photos" in ended.stderr, "it looked for them"


def test_every_other_command_works_without_the_catalogue(tmp_path: Path) -> None:
    assert "nothing is running" in shashin("status", state=tmp_path / "state").stdout
