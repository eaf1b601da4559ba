"""Fixtures that run tests with every index kind."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from shashin.shards.kinds.names import kind_names
from shashin.shards.kinds.registry import index_kind
from tests.support.kind_under_test import KindUnderTest
from tests.support.made_shards import DIMENSIONS, vectors

GROWING = [name for name in kind_names() if hasattr(index_kind(name), "growing")]


@pytest.fixture(scope="module", params=kind_names())
def tested(request: pytest.FixtureRequest) -> KindUnderTest:
    """Every kind in turn."""
    return KindUnderTest(request.param)


def written_files() -> list[tuple[str, str]]:
    """Return every file that every kind writes of a few rows, with the kind's name."""
    found = []
    for name in kind_names():
        builder = index_kind(name).builder(DIMENSIONS)
        builder.add(vectors(3, 1))
        with tempfile.TemporaryDirectory() as folder:
            found += [(name, file) for file in builder.write(Path(folder))]
    return found


@pytest.fixture(scope="module", params=written_files(), ids=" ".join)
def tested_file(request: pytest.FixtureRequest) -> tuple[KindUnderTest, str]:
    """Every kind in turn with the name of each of its files."""
    name, file = request.param
    return KindUnderTest(name), file


@pytest.fixture(scope="module", params=GROWING)
def growing(request: pytest.FixtureRequest) -> KindUnderTest:
    """Every kind whose indexes can be searched while they grow."""
    return KindUnderTest(request.param)
