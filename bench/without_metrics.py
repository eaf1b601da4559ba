"""Runs a module whose metrics count nothing: ``python -m bench.without_metrics MODULE``."""

from __future__ import annotations

import runpy
import sys
from typing import Any

from prometheus_client import metrics


class _Nothing:
    """Takes the place of a metric with its labels, and does nothing."""

    def inc(self, *_args: object, **_keywords: object) -> None:
        """Count nothing."""

    # Names of their own, since a look-up by name would cost more than some metrics do.
    dec = set = observe = set_function = info = inc


_NOTHING = _Nothing()
_METHODS = {
    "Counter": ("inc",),
    "Gauge": ("inc", "dec", "set", "set_function"),
    "Histogram": ("observe",),
}


def main() -> None:
    """Take what metrics do away, and run the module as the main one."""
    module = sys.argv[1]
    patched: Any = metrics
    patched.MetricWrapperBase.labels = lambda *_args, **_keywords: _NOTHING
    for kind, names in _METHODS.items():
        for name in names:
            setattr(getattr(patched, kind), name, _Nothing.inc)
    sys.argv = [module]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
