"""Only the embedder needs torch: every other service runs where it is not installed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.support.running_service import ROOT
from tests.support.running_system import SERVICES, ConnectedSystem

NO_TORCH = """
import sys
class NoTorch:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "torchvision"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, NoTorch())
"""
"""Makes torch unimportable, as if it were not installed."""

MISSING = {
    "router": ["SHASHIN_DISCOVERY"],
    "indexer": ["SHASHIN_REPOSITORY", "SHASHIN_WORK_FOLDER", "SHASHIN_DISCOVERY"],
    "index_server": ["SHASHIN_REPOSITORY"],
    "image_builder": ["SHASHIN_REPOSITORY"],
    "canary": ["SHASHIN_ROUTER", "SHASHIN_PHOTOS"],
}
"""What each service cannot start without; the downloader can."""


@pytest.fixture
def no_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make torch unimportable in child processes."""
    (tmp_path / "sitecustomize.py").write_text(NO_TORCH, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))


def run_service(name: str, **settings: str) -> subprocess.CompletedProcess[str]:
    own = {key: value for key, value in os.environ.items() if not key.startswith("SHASHIN_")}
    return subprocess.run(
        [sys.executable, "-m", f"services.{name}"],
        env={**own, **settings},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.mark.usefixtures("no_torch")
def test_the_embedder_cannot_run_where_torch_is_not_installed() -> None:
    ended = run_service("embedder")
    assert ended.returncode != 0
    assert "No module named 'torch'" in ended.stderr


@pytest.mark.usefixtures("no_torch")
@pytest.mark.parametrize("name", MISSING)
def test_a_service_without_torch_names_the_settings_that_it_misses_and_exits_with_2(
    name: str,
) -> None:
    ended = run_service(name)
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert line.startswith(f"{name.replace('_', '-')}: invalid settings: ")
    for variable in MISSING[name]:
        assert variable in line
    assert ended.stdout == ""


@pytest.mark.usefixtures("no_torch")
def test_a_downloader_without_torch_names_the_setting_that_is_wrong_and_exits_with_2() -> None:
    ended = run_service("downloader", SHASHIN_HTTP_PORT="no port", SHASHIN_DECODERS="0")
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert line.startswith("downloader: invalid settings: ")
    assert "SHASHIN_HTTP_PORT='no port'" in line
    assert "SHASHIN_DECODERS='0'" in line


async def test_of_the_running_system_only_the_embedder_has_torch_in_its_memory(
    system: ConnectedSystem,
) -> None:
    pids = system.system.pids()
    holding = {
        name
        for name in (*SERVICES, "supervisor")
        if any("libtorch" in mapped.path for mapped in psutil.Process(pids[name]).memory_maps())
    }
    assert holding == {"embedder"}
