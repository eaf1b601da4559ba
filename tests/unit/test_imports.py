"""What may be imported where: the contracts of pyproject.toml follow from its extras.

import-linter checks the contracts themselves, as part of ``make check``; here is what it cannot see.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from importlib.metadata import packages_distributions, requires
from pathlib import Path
from typing import Any

import grimp
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS: dict[str, list[str]] = PYPROJECT["project"]["optional-dependencies"]
SERVICES = sorted(path.parent.name for path in (ROOT / "services").glob("*/__main__.py"))
OF_A_CHECKOUT = ("builds", "cli", "dev")
"""Extras that no service has."""
OF_THE_BENCHMARKS = "bench"
"""The extra that `make install` leaves out, so that its libraries may be absent."""

ROOM_OF = {
    "google-cloud-storage": "shashin.objectstore",
    "usearch": "shashin.shards.kinds.registry",
}
"""Distributions whose imports a contract does not see, and the room that is forbidden instead.

import-linter knows packages by their first name, which google.cloud shares with protobuf; index
kinds are imported by a name in a string.
"""


def declared(*requirements: str) -> set[str]:
    """Return the distributions that requirements name, with those that their extras bring."""
    found: set[str] = set()
    for requirement in map(Requirement, requirements):
        if requirement.name == "shashin":
            continue
        found.add(canonicalize_name(requirement.name))
        for of_extra in requires(requirement.name) or ():
            brought = Requirement(of_extra)
            extras = [{"extra": extra} for extra in requirement.extras]
            if brought.marker and any(map(brought.marker.evaluate, extras)):
                found.add(canonicalize_name(brought.name))
    return found


BASE = declared(*PYPROJECT["project"]["dependencies"])


def extra_of(service: str) -> str:
    return service.replace("_", "-")


@cache
def imported_as() -> dict[str, set[str]]:
    """Return the packages that code imports each distribution by."""
    packages: dict[str, set[str]] = defaultdict(set)
    for package, distributions in packages_distributions().items():
        if package.isidentifier() and not package.startswith("_"):
            for distribution in distributions:
                packages[canonicalize_name(distribution)].add(package)
    return packages


def libraries_of(distributions: set[str], *, apart_from: set[str]) -> set[str]:
    """Return the packages of some distributions that none of the others has too."""
    names = [imported_as()[name] for name in distributions]
    others = [imported_as()[name] for name in apart_from]
    return set().union(*names) - set().union(*others)


@cache
def graph() -> grimp.ImportGraph:
    return grimp.build_graph("shashin", "services", include_external_packages=True, cache_dir=None)


def contract(source: str) -> dict[str, Any]:
    """Return the contract that says what a source may not reach."""
    (found,) = [
        c
        for c in PYPROJECT["tool"]["importlinter"]["contracts"]
        if c["type"] == "forbidden" and c["source_modules"] == [source]
    ]
    assert "allow_indirect_imports" not in found
    assert "ignore_imports" not in found
    return dict(found)


def forbidden_to(source: str) -> tuple[set[str], set[str]]:
    """Return the libraries and the rooms of shashin that a source may not reach."""
    names = set(contract(source)["forbidden_modules"])
    rooms = {name for name in names if name.startswith("shashin.")}
    return names - rooms, rooms


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_is_forbidden_every_library_that_only_the_extras_of_others_have(
    service: str,
) -> None:
    own = BASE | declared(*EXTRAS[extra_of(service)])
    others = declared(*(r for other in SERVICES for r in EXTRAS[extra_of(other)])) - own
    libraries, rooms = forbidden_to(f"services.{service}")
    assert libraries == libraries_of(others, apart_from=own)
    assert rooms == {room for name, room in ROOM_OF.items() if name in others}


def test_every_service_is_forbidden_what_only_the_command_or_a_checkout_has() -> None:
    of_services = BASE | declared(*(r for service in SERVICES for r in EXTRAS[extra_of(service)]))
    rest = declared(*(r for extra in OF_A_CHECKOUT for r in EXTRAS[extra])) - of_services
    libraries, rooms = forbidden_to("services")
    folders = {"shashin_catalogue", "bench", "tests"}
    assert libraries == libraries_of(rest, apart_from=of_services) | folders
    assert rooms == {
        f"shashin.{room}" for room in ("cli", "client", "local", "terminal", "workload")
    }


def libraries_reached(source: str) -> set[str]:
    reached = graph().find_upstream_modules(source, as_package=True)
    first_names = {name.partition(".")[0] for name in reached}
    return first_names - {"shashin", "services", "shashin_catalogue"} - sys.stdlib_module_names


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_reaches_only_libraries_that_its_extra_declares(service: str) -> None:
    own = BASE | declared(*EXTRAS[extra_of(service)])
    assert libraries_reached(f"services.{service}") <= libraries_of(own, apart_from=set())


def test_what_is_imported_anywhere_is_declared() -> None:
    installed = (of for extra, of in EXTRAS.items() if extra != OF_THE_BENCHMARKS)
    own = BASE | declared(*(r for requirements in installed for r in requirements))
    assert libraries_reached("shashin") <= libraries_of(own, apart_from=set())


def google_imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("google"))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("google"):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_only_object_stores_import_the_library_of_google_cloud() -> None:
    importers = {
        path.relative_to(ROOT).parts[:2]
        for folder in ("shashin", "services")
        for path in (ROOT / folder).rglob("*.py")
        for name in google_imports(path)
        if not name.startswith(("google.protobuf", "google.rpc"))
    }
    assert importers == {("shashin", "objectstore")}


@pytest.mark.parametrize("package", ["services", "bench", "shashin.cli"])
def test_what_grpc_reads_when_it_is_imported_is_set_by_then(package: str) -> None:
    # Modules of a package import gRPC before anything of ours, in their alphabetical order.
    code = f"import os, sys, {package}; print('grpc' in sys.modules, os.environ['GRPC_ENABLE_FORK_SUPPORT'])"
    environment = {k: v for k, v in os.environ.items() if k != "GRPC_ENABLE_FORK_SUPPORT"}
    command = [sys.executable, "-c", code]
    printed = subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True)
    assert printed.stdout.decode().split() == ["False", "0"]
