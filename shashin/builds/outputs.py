"""A step's output folder: which files it has, and whether they are still the same."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from shashin.builds.status import OutputFile
from shashin.errors import StepFailed
from shashin.shards.format.file_entry import file_entry


def measure_outputs(folder: Path) -> tuple[OutputFile, ...]:
    """Return every file below a step's output folder, with its SHA-256; reads all, so it blocks.

    Raises:
        StepFailed: if there is something other than files and folders, which cannot be verified.
        OSError: if something cannot be read.
    """
    if folder.is_symlink():
        raise StepFailed(f"{folder} is a link: expected the folder that the step was given")
    return tuple(sorted(_measured(folder, path) for path in _files(folder)))


def difference(folder: Path, expected: Sequence[OutputFile]) -> str:
    """Return how a step's output folder differs from what it was; empty if it does not.

    Reads all files if their names and sizes are right, so it blocks.
    """
    try:
        found = {path.relative_to(folder).as_posix(): path for path in _files(folder)}
        changed = _difference_in_size({name: _size(path) for name, path in found.items()}, expected)
        if changed:
            return changed
        for file in expected:
            if _measured(folder, found[file.path]).sha256 != file.sha256:
                return f"{file.path} was changed"
    except StepFailed as error:
        return error.message
    except OSError as error:
        return (
            f"{error.filename or folder} cannot be read: {(error.strerror or str(error)).lower()}"
        )
    return ""


def _difference_in_size(sizes: Mapping[str, int], expected: Sequence[OutputFile]) -> str:
    for file in expected:
        if file.path not in sizes:
            return f"{file.path} is missing"
        if sizes[file.path] != file.size:
            return f"{file.path} has {sizes[file.path]} bytes instead of {file.size}"
    added = sizes.keys() - {file.path for file in expected}
    return f"{min(added)} was added" if added else ""


def _size(path: Path) -> int:
    return path.stat().st_size


def _measured(folder: Path, path: Path) -> OutputFile:
    entry = file_entry(path)
    return OutputFile(path.relative_to(folder).as_posix(), entry.size, entry.sha256)


def _files(folder: Path) -> Iterator[Path]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if not _is_text(entry.name):
                raise StepFailed(f"{entry.path!r}: the name of an output has to be UTF-8")
            mode = entry.stat(follow_symlinks=False).st_mode
            if stat.S_ISDIR(mode):
                yield from _files(Path(entry.path))
            elif stat.S_ISREG(mode):
                yield Path(entry.path)
            else:
                raise StepFailed(
                    f"{entry.path} is neither a file nor a folder: a step's output may have nothing "
                    "else, since it is verified before a retry uses it"
                )


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
