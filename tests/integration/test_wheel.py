"""What a wheel installs into somebody's environment, and that a system starts from it alone."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from services.router.rest.page_files import FOLDER
from shashin.model.loading import LITE, SHIPPED

ROOT = Path(__file__).parents[2]

STARTS_A_ROUTER = """
import asyncio, sys
from pathlib import Path
from shashin.errors import ProcessFailed
from shashin.local import control
from shashin.local.processes import ProcessSpec
router = ProcessSpec(
    name="router",
    argv=(sys.executable, "-S", "-m", "services.router"),
    ready_url="http://127.0.0.1:1/readyz",
)
try:
    asyncio.run(control.up(Path(sys.argv[1]), [router]))
except ProcessFailed as error:
    print(error.message)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout."""
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    (built,) = folder.iterdir()
    return built


@pytest.fixture(scope="module")
def unpacked(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds the wheel and nothing else."""
    folder = tmp_path_factory.mktemp("unpacked")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def run(unpacked: Path, arguments: Sequence[object], *, cwd: Path) -> str:
    """Run Python with the unpacked wheel and its dependencies; returns what it prints."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("SHASHIN_")}
    paths = [str(unpacked), sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    done = subprocess.run(
        # -S: an installed checkout, which the environment of the tests has, is not found.
        [sys.executable, "-S", *map(str, arguments)],
        env={**kept, "PYTHONPATH": os.pathsep.join(paths)},
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_wheel_installs_one_package(wheel: Path) -> None:
    version = wheel.name.split("-")[1]
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {name.partition("/")[0] for name in names} == {
        "shashin",
        f"shashin-{version}.dist-info",
    }
    assert not [name for name in names if name.endswith(".pyc")]


def test_a_wheel_has_every_module_of_every_service_the_page_and_the_models(
    wheel: Path,
) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    modules = [path.relative_to(ROOT) for path in (ROOT / "services").rglob("*.py")]
    page = [path.relative_to(ROOT) for path in FOLDER.iterdir()]
    assert modules
    assert page
    assert {f"shashin/bundled/{file.as_posix()}" for file in modules + page} <= names
    models = ROOT / "models"
    shipped = [f"{name}/checkpoint.pt" for name in SHIPPED]
    shipped += [f"{LITE}/LICENSE", f"{LITE}/NOTICE"]
    assert all((models / file).exists() for file in shipped)
    assert {f"shashin/model/models/{file}" for file in shipped} <= names


def test_an_installed_wheel_finds_its_own_services_and_model(
    unpacked: Path, tmp_path: Path
) -> None:
    finds = (
        "from shashin.local.service_code import services_folder\n"
        "from shashin.model.loading import DEMO, shipped_checkpoint\n"
        "print(services_folder())\n"
        "print(shipped_checkpoint(DEMO))\n"
    )
    services, model = run(unpacked, ["-c", finds], cwd=tmp_path).splitlines()
    assert services == str(unpacked / "shashin" / "bundled")
    assert model == str(unpacked / "shashin" / "model" / "models" / "demo-v1" / "checkpoint.pt")


def test_a_service_is_started_from_an_installed_wheel_alone(unpacked: Path, tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    says = run(unpacked, ["-c", STARTS_A_ROUTER, state], cwd=tmp_path)
    assert says.startswith("router: it exited with code 2; ")
    assert "router: invalid settings: SHASHIN_DISCOVERY is not set" in says
