"""Reading files that others put there: only regular ones, by URIs that may name any bytes."""

from __future__ import annotations

import errno
import io
import os
import stat
from pathlib import Path
from urllib.parse import unquote_to_bytes, urlsplit


class NotARegularFile(OSError):
    """A pipe, socket or device: reading it might never end."""


def open_regular(path: Path) -> io.BufferedReader:
    """Open a regular file; anything else is refused at once, where ``open`` waits for a pipe.

    Raises:
        NotARegularFile: if it is a pipe, a socket or a device.
        OSError: if it cannot be opened; IsADirectoryError for a folder.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError as error:
        if error.errno == errno.ENXIO:  # a socket
            raise NotARegularFile(error.errno, "Not a regular file", str(path)) from None
        raise
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(mode):
            raise NotARegularFile(errno.EINVAL, "Not a regular file", str(path))
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def path_of_uri(uri: str) -> Path:
    """Return the path in a ``file://`` URI; the bytes of its name need not be UTF-8.

    Raises:
        ValueError: if the URI is malformed.
    """
    return Path(os.fsdecode(unquote_to_bytes(urlsplit(uri).path)))
