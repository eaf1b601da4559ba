"""Settings of all tests."""

from __future__ import annotations

from hypothesis import settings

import shashin

assert shashin.__doc__, "imported before gRPC, for which it makes settings"

# Machines differ in speed, and a test that is slow on one of them is not wrong.
settings.register_profile("shashin", deadline=None)
