"""Where child processes find the services, in a checkout and in an installed wheel."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from shashin.errors import UserError
from shashin.local import service_code
from shashin.local.service_code import child_environment, services_folder

ROOT = Path(__file__).parents[3]


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return where shashin is installed without anything else."""
    package = tmp_path / "site-packages" / "shashin"
    package.mkdir(parents=True)
    monkeypatch.setattr(service_code, "_SHASHIN", package)
    return package


def package(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "__init__.py").touch()


def test_a_checkout_has_its_services_beside_the_package() -> None:
    assert services_folder() == ROOT


def test_an_installed_wheel_has_its_services_in_the_package(installed: Path) -> None:
    package(installed / "bundled" / "services")
    assert services_folder() == installed / "bundled"


def test_another_projects_services_next_to_an_installed_package_are_ignored(
    installed: Path,
) -> None:
    package(installed / "bundled" / "services")
    package(installed.parent / "services")
    assert services_folder() == installed / "bundled"


def test_an_installation_without_services_is_named(installed: Path) -> None:
    with pytest.raises(UserError, match=f"shashin in {installed} has no services"):
        services_folder()


def test_a_child_finds_services_and_shashin_before_anything_else(installed: Path) -> None:
    package(installed / "bundled" / "services")
    inherited = {"HOME": "/home/me", "PYTHONPATH": os.pathsep.join(["/mine", "/yours"])}
    environment = child_environment(inherited)
    assert environment["HOME"] == "/home/me"
    assert environment["PYTHONPATH"].split(os.pathsep) == [
        str(installed / "bundled"),
        str(installed.parent),
        "/mine",
        "/yours",
    ]
    assert child_environment(environment) == environment, "idempotent, for grandchildren"


def test_an_empty_path_does_not_become_the_folder_that_a_child_runs_in(installed: Path) -> None:
    package(installed / "bundled" / "services")
    for nothing in ({}, {"PYTHONPATH": ""}):
        assert "" not in child_environment(nothing)["PYTHONPATH"].split(os.pathsep)
