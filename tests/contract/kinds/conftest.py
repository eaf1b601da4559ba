"""Fixtures that run tests with every index kind."""

from __future__ import annotations

import pytest

from shashin.shards.kinds.names import kind_names
from shashin.shards.kinds.registry import index_kind
from tests.support.kind_under_test import KindUnderTest

GROWING = [name for name in kind_names() if hasattr(index_kind(name), "growing")]


@pytest.fixture(scope="module", params=kind_names())
def tested(request: pytest.FixtureRequest) -> KindUnderTest:
    """Every kind in turn."""
    return KindUnderTest(request.param)


@pytest.fixture(scope="module", params=GROWING)
def growing(request: pytest.FixtureRequest) -> KindUnderTest:
    """Every kind whose indexes can be searched while they grow."""
    return KindUnderTest(request.param)
