"""Makes the folders of a build's steps before an attempt on Kubernetes: ``python -m shashin.builds.prepare``.

Folders of steps that run are emptied, those of steps that are kept have to be there. Also checks, before
a first attempt, that the repository has the model whose shards the build reads.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from shashin.builds.document import IndexBuild
from shashin.builds.known_models import require_known_model
from shashin.builds.prepare_codes import INVALID, LOST_OUTPUT
from shashin.builds.step_reports import write_reason
from shashin.builds.step_variables import BUILD, REASON, REPOSITORY
from shashin.errors import ShashinError, StepFailed, UserError
from shashin.runtime.logging import configure_logging


def prepare_folders(
    folder: Path, run: Sequence[str], keep: Sequence[str], forget: Sequence[str]
) -> None:
    """Make ``outputs`` and ``reports`` with a folder for each step, and ``work``.

    ``forget`` are the names of folders beside ``folder`` that are deleted.

    Raises:
        StepFailed: if the output of a step that is kept is not there.
    """
    for name in forget:
        if name != folder.name:
            shutil.rmtree(folder.parent / name, ignore_errors=True)
    outputs, reports = folder / "outputs", folder / "reports"
    lost = [name for name in keep if not (outputs / name).is_dir()]
    if lost:
        raise StepFailed(
            f"{outputs} has no longer what {', '.join(lost)} made: the next attempt begins with the "
            "first step"
        )
    for parent in (outputs, reports):
        for left in parent.iterdir() if parent.is_dir() else ():
            if left.name not in keep:
                _delete(left)
        for name in run:
            (parent / name).mkdir(parents=True)
    if not keep:
        _delete(folder / "work")
    (folder / "work").mkdir(exist_ok=True)


def read_build(environment: Mapping[str, str]) -> IndexBuild:
    """Return the document that the environment names.

    Raises:
        UserError: if a variable is missing, or the document is not valid.
    """
    missing = [name for name in (BUILD, REPOSITORY) if not environment.get(name)]
    if missing:
        raise UserError(
            f"{', '.join(missing)} not set: set it in the ConfigMap of the environment of pods"
        )
    path = Path(environment[BUILD])
    return IndexBuild.from_json(path.read_bytes(), origin=str(path))


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _failure(arguments: argparse.Namespace, environment: Mapping[str, str]) -> tuple[int, str]:
    """Do all; returns the exit code, and why it is not 0."""
    try:
        prepare_folders(arguments.folder, arguments.run, arguments.keep, arguments.forget)
        if not arguments.keep:
            asyncio.run(require_known_model(read_build(environment), environment[REPOSITORY]))
    except StepFailed as error:
        return LOST_OUTPUT, error.message
    except UserError as error:
        return INVALID, error.message
    except ShashinError as error:
        return 1, error.message
    except OSError as error:
        where = f"{error.filename}: " if error.filename is not None else ""
        return 1, f"{where}{(error.strerror or str(error)).lower()}"
    return 0, ""


def main() -> None:
    """Prepare what the command line names."""
    parser = argparse.ArgumentParser(prog="python -m shashin.builds.prepare")
    parser.add_argument("--folder", type=Path, required=True, help="the build's folder")
    parser.add_argument("--run", nargs="+", required=True, metavar="STEP")
    parser.add_argument("--keep", nargs="*", default=[], metavar="STEP")
    parser.add_argument("--forget", nargs="*", default=[], metavar="FOLDER")
    arguments = parser.parse_args()
    configure_logging(
        "build-prepare",
        level=os.environ.get("SHASHIN_LOG_LEVEL", "info"),
        log_format=os.environ.get("SHASHIN_LOG_FORMAT", "json"),
    )
    code, reason = _failure(arguments, os.environ)
    if code:
        sys.stderr.write(f"prepare: {reason}\n")
        path = os.environ.get(REASON)
        write_reason(Path(path) if path else None, reason)
    raise SystemExit(code)


if __name__ == "__main__":
    main()
