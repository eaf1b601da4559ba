"""Progress bars on a terminal."""

from __future__ import annotations

import os
import re
import subprocess
import sys

SHOWS = """
from shashin.terminal.console import Stages
with Stages() as stages:
    stages.set("waiting")
    stages.finish("waiting")
    stages.set("copied", 3)
    stages.set("services ready", 5, 6, note="waiting for embedder")
"""


def on_a_terminal(program: str, *, kind: str) -> list[str]:
    """Run a program whose stderr is a terminal; returns the lines it prints there."""
    person, terminal = os.openpty()
    try:
        with subprocess.Popen(
            [sys.executable, "-c", program],
            stderr=terminal,
            env={
                **os.environ,
                "TERM": kind,
                "COLUMNS": "110",
                "PYTHONPATH": os.pathsep.join(sys.path),
            },
        ) as process:
            os.close(terminal)
            shown = b""
            while data := _read(person):
                shown += data
        assert process.returncode == 0
    finally:
        os.close(person)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())
    return [line.strip() for line in re.split(r"[\r\n]+", text) if line.strip()]


def _read(person: int) -> bytes:
    try:
        return os.read(person, 65536)
    except OSError:  # EOF: every writer has exited
        return b""


def test_only_what_is_counted_has_a_bar_and_figures() -> None:
    lines = on_a_terminal(SHOWS, kind="xterm")
    waiting = next(line for line in reversed(lines) if "waiting " in line and "ready" not in line)
    assert re.fullmatch(r"✓ waiting +\d:\d\d:\d\d", waiting)
    copied = next(line for line in reversed(lines) if "copied" in line)
    assert re.search(r" 3 +\d:\d\d:\d\d", copied)
    ready = next(line for line in reversed(lines) if "services ready" in line)
    assert re.search(r"━ 5/6 \d:\d\d:\d\d waiting for embedder", ready)


def test_a_terminal_that_cannot_draw_gets_lines() -> None:
    (line,) = on_a_terminal(SHOWS, kind="dumb")
    assert line.endswith("waiting: done   copied 3   services ready 5/6 (waiting for embedder)")
