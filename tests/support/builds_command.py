"""The command ``shashin``, whose builds run the steps of ``tests.support.build_steps``."""

from __future__ import annotations

from functools import partial

from shashin.builds.runner import RunOptions
from shashin.cli import app
from shashin.cli.builds import command
from tests.support.build_steps import steps_of_environment

if __name__ == "__main__":
    options = partial(RunOptions, built_in_step=steps_of_environment())
    setattr(command, RunOptions.__name__, options)
    app.main()
