"""Runs a module whose instrumentation a signal switches: ``python -m bench.switched_instrumentation MODULE``.

Two processes of the same program differ by more than what instrumentation costs, so both sides are measured
in one. It starts with everything on: whatever keeps the children of a metric has to find real ones.
"""

from __future__ import annotations

import runpy
import signal
import sys
from typing import Any

from prometheus_client import metrics

from shashin.metrics.quick_histogram import QuickHistogram
from shashin.runtime import tracing
from shashin.serving.recall_monitor import Sample

OFF, ON = signal.SIGWINCH, signal.SIGHUP
"""The signals."""

_METHODS = {
    metrics.Counter: ("inc",),
    metrics.Gauge: ("inc", "dec", "set", "set_function"),
    QuickHistogram: ("observe",),
    Sample: ("offer", "take"),
}


class _Nothing:
    """Takes the place of a metric with its labels, and does nothing."""

    def inc(self, *_args: object, **_keywords: object) -> None:
        """Count nothing."""

    # Names of their own, since a look-up by name would cost more than some metrics do.
    dec = set = observe = set_function = info = inc


class _Switch:
    """Whether instrumentation is on, and how it is switched."""

    def __init__(self) -> None:
        nothing = _Nothing()
        labels: Any = lambda *_args, **_keywords: nothing  # noqa: E731
        self._off: list[tuple[Any, str, Any]] = [
            (owner, name, _Nothing.inc) for owner, names in _METHODS.items() for name in names
        ]
        self._off.append((metrics.MetricWrapperBase, "labels", labels))
        self._on = [(owner, name, getattr(owner, name)) for owner, name, _ in self._off]
        self._tracer: Any = None
        self.is_on = True

    def switch_off(self, *_: object) -> None:
        if self.is_on:
            self.is_on = False
            self._tracer, tracing._tracer = tracing._tracer, None  # noqa: SLF001
            for owner, name, method in self._off:
                setattr(owner, name, method)

    def switch_on(self, *_: object) -> None:
        if not self.is_on:
            self.is_on = True
            tracing._tracer = self._tracer  # noqa: SLF001
            for owner, name, method in self._on:
                setattr(owner, name, method)


def main() -> None:
    """Take the signals, and run the module as the main one."""
    switch = _Switch()
    signal.signal(OFF, switch.switch_off)
    signal.signal(ON, switch.switch_on)
    sys.argv = [sys.argv[1]]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
