"""The command ``shashin``, whose builds run the steps of ``tests.support.build_steps``."""

from __future__ import annotations

from functools import partial

from shashin.builds.runner import RunOptions
from shashin.cli import app
from shashin.cli.builds import command
from tests.support.build_steps import command_of

if __name__ == "__main__":
    setattr(command, RunOptions.__name__, partial(RunOptions, built_in_step=command_of))
    app.main()
