"""The command ``shashin``, whose builds run the steps of ``tests.support.build_steps``."""

from __future__ import annotations

import os
from functools import partial

from shashin.builds.runner import RunOptions
from shashin.cli import app
from shashin.cli.builds import command
from tests.support.build_steps import quick_step, real_step

REAL_STEPS = "TEST_BUILD_REAL_STEPS"

if __name__ == "__main__":
    steps = real_step if os.environ.get(REAL_STEPS) else quick_step
    setattr(command, RunOptions.__name__, partial(RunOptions, built_in_step=steps))
    app.main()
