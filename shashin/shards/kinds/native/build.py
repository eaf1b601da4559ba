"""Compiles ``lists.c`` into a library that any Python of this platform can load.

    python -m shashin.shards.kinds.native.build

The compiler is that of the package ziglang, which needs nothing from the system and links against an old
glibc; ``CC`` names another one. ``make install`` runs this, and so does the Dockerfile.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import platform
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

FOLDER = Path(__file__).parent
SOURCE = FOLDER / "lists.c"
LIBRARY = FOLDER / "lists.so"

_FLAGS = (
    "-std=c11",
    "-O3",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-fPIC",
    "-shared",
    "-fvisibility=hidden",
)
_GLIBC = "2.28"
"""Older than that of any system with Python 3.11."""


def compiler() -> list[str]:
    """Return the command of the compiler, with its target.

    Raises:
        SystemExit: when there is none.
    """
    if chosen := os.environ.get("CC"):
        return shlex.split(chosen)
    if importlib.util.find_spec("ziglang") is None:
        sys.exit("no compiler: install the package ziglang, or set CC to a C compiler")
    command = [sys.executable, "-m", "ziglang", "cc"]
    if sys.platform == "linux" and platform.libc_ver()[0] == "glibc":
        command += ["-target", f"{platform.machine()}-linux-gnu.{_GLIBC}"]
    return command


def source_hash() -> str:
    """Return the hash of the source, which the library contains."""
    return hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:16]


def build() -> None:
    """Compile, and put the library in place at once.

    Raises:
        SystemExit: when the compiler fails; it has printed why.
    """
    with tempfile.TemporaryDirectory(dir=FOLDER, prefix=".build-") as folder:
        made = Path(folder) / LIBRARY.name
        version = f'-DSOURCE_HASH="{source_hash()}"'
        command = [*compiler(), *_FLAGS, version, "-o", str(made), str(SOURCE), "-lm"]
        if code := subprocess.run(command, check=False).returncode:
            sys.exit(f"`{shlex.join(command)}` failed with exit code {code}")
        made.replace(LIBRARY)


if __name__ == "__main__":
    build()
