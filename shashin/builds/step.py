"""Runs one built-in step of a build in a process of its own: ``python -m shashin.builds.step NAME``.

Whoever runs a build describes it in the environment (``shashin.builds.step_variables``).
"""

from __future__ import annotations

import argparse
import asyncio
import errno
import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import structlog

from shashin.builds.document import BUILT_IN_STEPS, IndexBuild
from shashin.builds.step_reports import Progress, ProgressFile, write_reason, write_result
from shashin.builds.step_variables import BUILD, OUT, PROGRESS, REASON, REPOSITORY, RESULT, WORK
from shashin.errors import ObjectStoreUnavailable, ShashinError, UserError
from shashin.objectstore.open import opened_object_store
from shashin.objectstore.protocol import ObjectStore
from shashin.repository.pointer import pointer_key
from shashin.runtime.failpoints import BUILD as BUILD_FAILPOINTS
from shashin.runtime.failpoints import enable
from shashin.runtime.logging import configure_logging, get_logger

Step = Callable[["StepContext"], Coroutine[Any, Any, None]]

STEPS = {name: f"shashin.builds.steps.{name}:run" for name in BUILT_IN_STEPS}
"""The function of each built-in step, imported only by the process that runs it: each has libraries
that the others do not need."""

_REPOSITORY_SECONDS = 60.0
_REPOSITORY_RETRY_SECONDS = 1.0

_FULL = {errno.ENOSPC, errno.EDQUOT}


@dataclass(frozen=True)
class StepContext:
    """A step's handle on its build."""

    name: str
    build: IndexBuild
    work: Path
    """Shared by all steps and kept by a retry. Its content is not checked, so a step uses it only
    for what it can check itself, such as files that it does not want to fetch twice."""
    out: Path
    """For the step's output; empty at its start. It counts only once the step has succeeded, and is
    from then on checked by SHA-256."""
    repository: str
    """URI of the model repository."""
    log: structlog.stdlib.BoundLogger
    reported: ProgressFile
    published: list[str] = field(default_factory=list)
    """Ids of the shards that the step has published, for the build's status."""

    def output_of(self, step: str) -> Path:
        """Return the output folder of a step before this one, to be read only.

        Raises:
            UserError: if no step before this one has this name.
        """
        names = [one.name for one in self.build.spec.pipeline]
        before = names[: names.index(self.name)]
        if step not in before:
            raise UserError(
                f"step {self.name} has no step {step!r} before it: expected one of "
                f"{', '.join(before) or 'none, since it is the first'}"
            )
        return self.out.parent / step

    def progress(self, done: float, total: float | None = None, unit: str = "rows") -> None:
        """Report the progress; cheap enough for each batch. ``total`` is None if it is not known."""
        self.reported.set(Progress(done, total, unit))


@asynccontextmanager
async def opened_repository(step: StepContext) -> AsyncIterator[ObjectStore]:
    """Open a step's model repository, once it responds: a pod's network may come later than the pod.

    Raises:
        ObjectStoreUnavailable: when it does not respond for a minute.
    """
    spec = step.build.spec
    deadline = time.monotonic() + _REPOSITORY_SECONDS
    async with opened_object_store(step.repository) as store:
        while True:
            try:
                await store.read(pointer_key(spec.model, spec.tier))
            except ObjectStoreUnavailable as error:
                if time.monotonic() >= deadline:
                    raise
                step.log.warning("waiting for the model repository", error=error.message)
                await asyncio.sleep(_REPOSITORY_RETRY_SECONDS)
            except ShashinError:
                break  # it responds; whatever else is wrong, the step says
            else:
                break
        yield store


def context_of(name: str, environment: Mapping[str, str]) -> StepContext:
    """Return the context that the environment describes.

    Raises:
        UserError: if a variable is missing, or the document cannot be read or has no such step.
    """
    missing = [v for v in (BUILD, WORK, OUT, REPOSITORY) if not environment.get(v)]
    if missing:
        raise UserError(
            f"{', '.join(missing)} not set: a step is run by `shashin builds run`, which sets it"
        )
    path = Path(environment[BUILD])
    try:
        build = IndexBuild.from_json(path.read_bytes(), origin=str(path))
    except OSError as error:
        raise UserError(f"{BUILD}={path} cannot be read: {error.strerror or error}") from error
    if name not in [step.name for step in build.spec.pipeline]:
        raise UserError(f"the pipeline of {build.name} has no step {name!r}")
    progress = environment.get(PROGRESS)
    return StepContext(
        name=name,
        build=build,
        work=Path(environment[WORK]),
        out=Path(environment[OUT]),
        repository=environment[REPOSITORY],
        log=get_logger(f"{__name__}.{name}").bind(build=build.name),
        reported=ProgressFile(Path(progress) if progress else None),
    )


def run_step(name: str, environment: Mapping[str, str]) -> int:
    """Run a built-in step; returns its exit code, 0 or 1.

    A known error is one line, and the reason in the build's record; any other one also leaves its
    traceback in the log.
    """
    reason_path = environment.get(REASON)
    try:
        reason = _failure(name, environment)
    except Exception as error:  # noqa: BLE001 - the process ends with it
        get_logger(__name__).exception("failed unexpectedly", step=name)
        reason = f"unexpected {type(error).__name__}: {error}; the log has the traceback"
    if not reason:
        return 0
    sys.stderr.write(f"{name}: {reason}\n")
    write_reason(Path(reason_path) if reason_path else None, reason)
    return 1


def _failure(name: str, environment: Mapping[str, str]) -> str:
    """Run a step; returns its known error, or an empty string if it succeeded."""
    try:
        step = context_of(name, environment)
        run: Step = resolve_name(STEPS[name])
        try:
            asyncio.run(run(step))
        finally:
            step.reported.flush()
        result = environment.get(RESULT)
        write_result(Path(result) if result else None, step.published, step.reported.latest)
    except ShashinError as error:
        return error.message
    except OSError as error:
        if error.errno not in _FULL:
            raise
        where = f"{error.filename}: " if error.filename is not None else ""
        return f"{where}{(error.strerror or str(error)).lower()}: free some space, then retry"
    return ""


def main() -> None:
    """Run the step that the command line names."""
    parser = argparse.ArgumentParser(prog="python -m shashin.builds.step")
    parser.add_argument("name", choices=list(STEPS))
    name = parser.parse_args().name
    configure_logging(
        f"build-{name}",
        level=os.environ.get("SHASHIN_LOG_LEVEL", "info"),
        log_format=os.environ.get("SHASHIN_LOG_FORMAT", "console"),
    )
    enable(BUILD_FAILPOINTS)
    raise SystemExit(run_step(name, os.environ))


if __name__ == "__main__":
    main()
