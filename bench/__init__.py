"""Benchmarks of the whole system on one machine: ``make bench``."""
