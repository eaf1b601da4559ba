"""The record of each build: a folder ``builds/<name>`` in the state folder.

```
build.json                    the document
status.json                   phase, attempts and steps; written only by the process that runs it
lock                          held by that process while it lives
cancel                        there once someone has asked it to stop
logs/<step>.<attempt>.log     what each step printed
outputs/<step>/               what each step made
reports/<step>/               progress and reason, written by the step
work/                         shared by the steps
```

Files are replaced as a whole, so a record can be read at any moment.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from shashin.builds.document import IndexBuild, check_build_name
from shashin.builds.status import BuildStatus
from shashin.builds.step_reports import read_progress
from shashin.errors import (
    BuildNotFound,
    BuildRunning,
    DiskUnavailable,
    ShashinError,
    UnreadableBuild,
    UserError,
)
from shashin.runtime.json_file import replace_file, write_json

_LOCK_SECONDS = 0.5
"""How long to try: a reader that looks whether the lock is held holds it for a moment."""

_POLL_SECONDS = 0.05
_NEW, _REMOVED = ".new-", ".removed-"
"""Begins of the names of folders that are not yet, or no longer, a record."""

_LOG_NAME = re.compile(r"(?P<step>[a-z0-9-]+)\.(?P<attempt>[0-9]+)\.log")


@dataclass(frozen=True)
class RecordedBuild:
    """A build as its record has it."""

    build: IndexBuild
    status: BuildStatus


@dataclass(frozen=True)
class StepLog:
    """The log of one step in one attempt."""

    step: str
    attempt: int
    path: Path


class BuildRecord:
    """The folder of one build, which need not exist."""

    def __init__(self, folder: Path) -> None:
        self.name = folder.name
        self.folder = folder
        self.document_path = folder / "build.json"
        self.status_path = folder / "status.json"
        self._cancel_path = folder / "cancel"
        self.work = folder / "work"
        self._lock_path = folder / "lock"

    # --- paths ----------------------------------------------------------------------------------

    @property
    def outputs(self) -> Path:
        """The folder of the steps' output folders."""
        return self.folder / "outputs"

    def reports(self, step: str) -> Path:
        """Return the folder of a step's reports."""
        return self.folder / "reports" / step

    def progress_path(self, step: str) -> Path:
        """Return the file to which a step writes its progress."""
        return self.reports(step) / "progress.json"

    def reason_path(self, step: str) -> Path:
        """Return the file to which a step writes why it failed."""
        return self.reports(step) / "reason"

    def log_path(self, step: str, attempt: int) -> Path:
        """Return the log of a step in one attempt."""
        return self.folder / "logs" / f"{step}.{attempt}.log"

    def logs(self) -> list[StepLog]:
        """Return the logs of all steps and attempts, by attempt."""
        found = [
            StepLog(match["step"], int(match["attempt"]), path)
            for path in (self.folder / "logs").glob("*.log")
            if (match := _LOG_NAME.fullmatch(path.name))
        ]
        return sorted(found, key=lambda log: (log.attempt, log.path.stat().st_mtime_ns))

    # --- reading --------------------------------------------------------------------------------

    def read(self) -> RecordedBuild:
        """Return the build as it is now, with the progress of the step that is running.

        A build that no process runs any more, though its status says so, has failed.

        Raises:
            BuildNotFound: if there is no such build.
            UnreadableBuild: if its record cannot be read.
            UnknownFormat: if another version wrote it.
        """
        self.require()
        build = self.read_document()
        status = self.read_status()
        while not status.ended and not self.is_locked():
            again = self.read_status()
            if again == status:
                return RecordedBuild(build, status.without_a_runner())
            status = again
        if (step := status.running_step) is not None and step.started is not None:
            seconds = (datetime.now(UTC) - step.started).total_seconds()
            status = status.with_progress(
                read_progress(self.progress_path(step.name)), max(seconds, 0)
            )
        return RecordedBuild(build, status)

    def require(self) -> None:
        """Check that the build exists.

        Raises:
            BuildNotFound: if it does not.
        """
        if not self.folder.is_dir():
            raise BuildNotFound(
                f"no build is named {self.name!r} in {self.folder.parent}: `shashin builds ls` lists "
                "all builds"
            )

    def read_document(self) -> IndexBuild:
        """Return the document.

        Raises:
            UnreadableBuild: if it cannot be read, or is that of another build.
        """
        try:
            data = self.document_path.read_bytes()
            build = IndexBuild.from_json(data, origin=str(self.document_path))
        except OSError as error:
            raise self._unreadable(self.document_path, error) from error
        except UserError as error:
            raise UnreadableBuild(f"{error.message}; {self._advice()}") from error
        if build.name != self.name:
            raise UnreadableBuild(
                f"{self.document_path} is the document of {build.name!r}: {self._advice()}"
            )
        return build

    def read_status(self) -> BuildStatus:
        """Return the status as it was last written.

        Raises:
            UnreadableBuild: if it cannot be read.
            UnknownFormat: if another version wrote it.
        """
        try:
            document = json.loads(self.status_path.read_bytes())
        except OSError as error:
            raise self._unreadable(self.status_path, error) from error
        except (ValueError, RecursionError) as error:
            raise UnreadableBuild(
                f"{self.status_path} is not JSON ({error}): {self._advice()}"
            ) from error
        return BuildStatus.from_document(document, origin=str(self.status_path))

    def _unreadable(self, path: Path, error: OSError) -> UnreadableBuild:
        why = (error.strerror or str(error)).lower()
        return UnreadableBuild(f"{path} cannot be read: {why}: {self._advice()}")

    def _advice(self) -> str:
        return f"restore it, or `shashin builds rm {self.name}` and run the build again"

    # --- writing --------------------------------------------------------------------------------

    def create(self, build: IndexBuild, status: BuildStatus) -> bool:
        """Create the record of a new build, as a whole; returns False if there is one already.

        Raises:
            DiskUnavailable: when it cannot be written.
        """
        if self.folder.exists():
            return False
        unfinished = BuildRecord(self.folder.with_name(f"{_NEW}{self.name}.{secrets.token_hex(4)}"))
        try:
            unfinished.write_document(build)
            unfinished.write_status(status)
            unfinished.folder.rename(self.folder)
        except OSError as error:
            if not self.folder.exists():
                raise self._unwritable(self.folder, error) from error
            return False  # another process was first
        finally:
            shutil.rmtree(unfinished.folder, ignore_errors=True)
        return True

    def write_document(self, build: IndexBuild) -> None:
        """Write the document.

        Raises:
            DiskUnavailable: when it cannot be written.
        """
        try:
            replace_file(self.document_path, build.to_json())
        except OSError as error:
            raise self._unwritable(self.document_path, error) from error

    def write_status(self, status: BuildStatus) -> None:
        """Write the status.

        Raises:
            DiskUnavailable: when it cannot be written.
        """
        try:
            write_json(self.status_path, status.document())
        except OSError as error:
            raise self._unwritable(self.status_path, error) from error

    @property
    def asked_to_stop(self) -> bool:
        """Whether someone has asked the process that runs the build to stop."""
        return self._cancel_path.exists()

    def ask_to_stop(self) -> None:
        """Ask the process that runs the build to stop.

        Raises:
            DiskUnavailable: when that cannot be written.
        """
        try:
            self._cancel_path.touch()
        except OSError as error:
            raise self._unwritable(self._cancel_path, error) from error

    def forget_stop(self) -> None:
        """Forget that someone has asked to stop.

        Raises:
            DiskUnavailable: when that cannot be written.
        """
        try:
            self._cancel_path.unlink(missing_ok=True)
        except OSError as error:
            raise self._unwritable(self._cancel_path, error) from error

    def _unwritable(self, path: Path, error: OSError) -> DiskUnavailable:
        why = (error.strerror or str(error)).lower()
        return DiskUnavailable(f"{path} cannot be written: {why}: correct that, then try again")

    # --- the lock -------------------------------------------------------------------------------

    @asynccontextmanager
    async def locked(self) -> AsyncIterator[None]:
        """Own the record: no other process runs, cancels or removes the build meanwhile.

        The lock ends with the process, however it ends.

        Raises:
            BuildNotFound: if there is no such build.
            BuildRunning: if another process owns it.
            DiskUnavailable: when the folder cannot be written.
        """
        lock = await self._lock()
        try:
            yield
        finally:
            lock.close()

    async def _lock(self) -> BinaryIO:
        deadline = time.monotonic() + _LOCK_SECONDS
        while True:
            self.require()
            try:
                lock = self._lock_path.open("ab")
            except FileNotFoundError:
                continue  # removed just now
            except OSError as error:
                raise self._unwritable(self._lock_path, error) from error
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.samestat(os.fstat(lock.fileno()), self._lock_path.stat()):
                    return lock
            except (BlockingIOError, FileNotFoundError):
                pass
            lock.close()  # another process has it, or has just removed the record
            if time.monotonic() > deadline:
                raise BuildRunning(
                    f"another process runs build {self.name}: `shashin builds logs {self.name} "
                    f"--follow` shows it, `shashin builds cancel {self.name}` stops it"
                )
            await asyncio.sleep(_POLL_SECONDS)

    def is_locked(self) -> bool:
        """Return whether a process owns the record."""
        try:
            with self._lock_path.open("rb") as lock:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    # --- removing -------------------------------------------------------------------------------

    def delete_outputs(self) -> None:
        """Delete what the steps made; the document, the status and the logs stay."""
        for folder in (self.outputs, self.work):
            shutil.rmtree(folder, ignore_errors=True)

    def remove(self) -> None:
        """Delete the record; the caller owns it.

        Raises:
            OSError: when something cannot be deleted; the build is then gone nevertheless.
        """
        for begin in (_NEW, _REMOVED):
            for left in self.folder.parent.glob(f"{begin}{self.name}.*"):
                shutil.rmtree(left)  # by a process that was killed
        # Renamed first, so that no reader sees a record of which half is gone.
        removed = self.folder.with_name(f"{_REMOVED}{self.name}.{secrets.token_hex(4)}")
        self.folder.rename(removed)
        shutil.rmtree(removed)


class BuildRecords:
    """All builds of a state folder."""

    def __init__(self, state_folder: Path) -> None:
        self.folder = state_folder.absolute() / "builds"

    def record(self, name: str) -> BuildRecord:
        """Return the record of a build, which need not exist.

        Raises:
            UserError: if no build can have this name.
        """
        check_build_name(name)
        return BuildRecord(self.folder / name)

    def read_all(self) -> tuple[list[RecordedBuild], dict[str, ShashinError]]:
        """Return all builds, oldest first, and by its name why each other one cannot be read."""
        found: list[RecordedBuild] = []
        unreadable: dict[str, ShashinError] = {}
        for name in self._names():
            try:
                found.append(self.record(name).read())
            except BuildNotFound:
                continue  # removed meanwhile
            except ShashinError as error:
                unreadable[name] = error
        found.sort(key=lambda one: (one.status.created, one.build.name))
        return found, unreadable

    def _names(self) -> list[str]:
        try:
            with os.scandir(self.folder) as entries:
                return sorted(
                    entry.name
                    for entry in entries
                    if entry.is_dir() and not entry.name.startswith(".")
                )
        except FileNotFoundError:
            return []
