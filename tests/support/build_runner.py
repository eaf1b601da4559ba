"""A runner of one build as a process, without the rest of the command, which takes long to import.

Run as ``python -m tests.support.build_runner STATE FILE``.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from shashin.builds.document import IndexBuild
from shashin.builds.records import BuildRecords
from shashin.builds.runner import RunOptions, run_build
from tests.support.build_steps import steps_of_environment

if __name__ == "__main__":
    state, file = map(Path, sys.argv[1:])
    build = IndexBuild.from_json(file.read_bytes(), origin=str(file))
    status = asyncio.run(
        run_build(
            BuildRecords(state).record(build.name),
            build,
            repository=(state / "repository").as_uri(),
            command_folder=file.parent,
            options=RunOptions(built_in_step=steps_of_environment()),
        )
    )
    sys.exit(status.phase != "Succeeded")
