"""Benchmarks of the whole system on one machine: ``make bench``."""

import shashin

assert shashin.__doc__, "imported before gRPC, for which it makes settings"
