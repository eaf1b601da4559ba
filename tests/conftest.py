"""Settings of all tests."""

from __future__ import annotations

import pytest
from hypothesis import settings

import shashin

assert shashin.__doc__, "imported before gRPC, for which it makes settings"

# Machines differ in speed, and a test that is slow on one of them is not wrong.
settings.register_profile("shashin", deadline=None)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the integration tests last: the systems that they share would otherwise idle beside all others."""
    items.sort(key=lambda item: item.nodeid.startswith("tests/integration/"))
