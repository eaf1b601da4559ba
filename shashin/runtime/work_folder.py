"""The work folder of a service: owned by one process at a time, so that it may delete what is there.

A marker file says that a folder is a work folder, and the process that holds the marker's lock owns
it. The lock ends with the process, however it ends.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from shashin.errors import DiskUnavailable, SettingsError

MARKER = ".shashin-work-folder"


class WorkFolder:
    """A folder that this process owns from now on; it is created if missing.

    ``variable`` is the setting that names it.

    Raises:
        SettingsError: when the folder is not empty and no work folder, when another process owns
            it, or when it cannot be a folder that this process may write to.
        DiskUnavailable: when it cannot be used for another reason.
    """

    def __init__(self, path: Path, *, variable: str = "SHASHIN_WORK_FOLDER") -> None:
        self.path = path
        try:
            path.mkdir(parents=True, exist_ok=True)
            names = {entry.name for entry in path.iterdir()}
            if names and MARKER not in names:
                raise SettingsError(
                    f"{variable}={str(path)!r}: the folder is not empty and has no {MARKER}, so it "
                    "may be someone else's: name an empty or a new folder, since what is in it is "
                    "deleted"
                )
            self._marker = _locked_marker(path)
        except BlockingIOError:
            raise SettingsError(
                f"{variable}={str(path)!r}: another process uses this folder: give each process "
                "a folder of its own"
            ) from None
        except (FileExistsError, NotADirectoryError, PermissionError) as error:
            raise SettingsError(
                f"{variable}={str(path)!r}: {error.strerror}: name a folder that can be written"
            ) from error
        except OSError as error:
            raise DiskUnavailable(f"{path} cannot be used: {error.strerror or error}") from error

    def keep(self) -> None:
        """Mark and lock the folder again if someone deleted it, or the marker, meanwhile.

        Called before writing: otherwise the next start would take its files for a stranger's.

        Raises:
            OSError: when the folder cannot be written, or another process has taken it.
        """
        try:
            found = (self.path / MARKER).stat()
        except FileNotFoundError:
            pass
        else:
            if os.path.samestat(found, os.fstat(self._marker.fileno())):
                return
        self.path.mkdir(parents=True, exist_ok=True)
        try:
            renewed = _locked_marker(self.path)
        except BlockingIOError as error:
            raise OSError(errno.EBUSY, "another process uses this folder") from error
        self._marker.close()
        self._marker = renewed

    def clear(self) -> None:
        """Delete everything in the folder except the marker."""
        for entry in self.path.iterdir():
            if entry.name == MARKER:
                continue
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                with suppress(OSError):
                    entry.unlink()

    def close(self) -> None:
        """Give the folder up; it stays marked."""
        self._marker.close()


def mark_work_folder(path: Path) -> None:
    """Mark an existing folder as a work folder, if it is not yet; the caller knows that it is one.

    Raises:
        OSError: when it cannot be written.
    """
    (path / MARKER).touch()


def _locked_marker(path: Path) -> BinaryIO:
    marker = (path / MARKER).open("ab")
    try:
        fcntl.flock(marker, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        marker.close()
        raise
    return marker
