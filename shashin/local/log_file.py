"""Size-bounded process logs, and reading their last lines."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

_TAIL_BYTES = 16 * 1024


class BoundedLog:
    """A log file that is rotated to ``<name>.1`` once it is full: at most two files."""

    def __init__(self, path: Path, *, max_bytes: int = 8 * 1024 * 1024) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._max_bytes = max_bytes
        self._file = path.open("ab", buffering=0)
        self._size = os.fstat(self._file.fileno()).st_size
        self._line_ended = _ends_with_a_line(path)

    def write(self, data: bytes) -> None:
        """Append; if the disk is full, the data is dropped without an error."""
        with suppress(OSError):
            if self._size and self._size + len(data) > self._max_bytes:
                self._rotate()
            self._size += self._file.write(data) or 0
            self._line_ended = data.endswith(b"\n") if data else self._line_ended

    def write_line(self, line: str) -> None:
        """Append one line, after a line break if the last line is incomplete."""
        begin = "" if self._line_ended else "\n"
        self.write(f"{begin}{line}\n".encode("utf-8", errors="replace"))

    def _rotate(self) -> None:
        with suppress(FileNotFoundError):  # deleted, or the last attempt got no further
            self.path.replace(self.path.with_name(self.path.name + ".1"))
        fresh = self.path.open("ab", buffering=0)
        self._file.close()
        self._file, self._size = fresh, 0

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class LogStream(io.TextIOBase):
    """A bounded log as a text stream, to replace this process's stderr."""

    def __init__(self, log: BoundedLog) -> None:
        self._log = log

    def write(self, text: str) -> int:
        """Append; returns the number of characters."""
        self._log.write(text.encode("utf-8", errors="replace"))
        return len(text)


def _ends_with_a_line(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            if file.seek(0, os.SEEK_END):
                file.seek(-1, os.SEEK_END)
                return file.read(1) == b"\n"
    except OSError:
        pass
    return True


def size_of(path: Path) -> int:
    """Return a file's size in bytes; 0 if it does not exist."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def last_lines(path: Path, count: int = 15, *, since: int = 0) -> list[str]:
    """Return a log's last non-blank lines; none if there is no log.

    ``since`` is the size of the log in bytes before the lines of interest; a log that is now
    smaller has been rotated and is read from its beginning.
    """
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            first = since if since <= size else 0
            start = file.seek(max(first, size - _TAIL_BYTES))
            text = file.read().decode("utf-8", errors="replace")
    except OSError:
        return []
    lines = text.splitlines()
    if start > first and len(lines) > 1:
        lines = lines[1:]  # the first is truncated
    return [line for line in lines if line.strip()][-count:]


def quoted(lines: Iterable[str]) -> str:
    """Format log lines for the end of an error message."""
    text = "\n".join(f"  | {line}" for line in lines)
    return f"\n{text}" if text else " (its log is empty)"
