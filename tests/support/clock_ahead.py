"""Runs a module with its clock set: ``python -m tests.support.clock_ahead SECONDS MODULE``."""

from __future__ import annotations

import runpy
import sys
import time


def main() -> None:
    """Shift ``time.time``, and run the module as the main one."""
    seconds, module = float(sys.argv[1]), sys.argv[2]
    right = time.time
    time.time = lambda: right() + seconds
    sys.argv = [module]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
