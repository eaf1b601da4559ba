"""The catalogue of metrics: every metric that a Shashin process can expose, and no other code.

``definitions`` says what a metric and a label are, ``core`` makes metrics of them whose labels stay
bounded, and ``labels`` has the labels that several areas share; every other module is one area. A process exposes the areas that it imports. ``make docs`` writes
docs/metrics.md from these modules.
"""
