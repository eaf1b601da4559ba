"""The command ``shashin`` as a process with output and exit code."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.waiting import until

COMMAND = Path(sys.executable).with_name("shashin")
LIMIT_SECONDS = 240.0
"""Limit for a command that hangs."""


@dataclass(frozen=True)
class Finished:
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """What it printed, as JSON."""
        return json.loads(self.out)

    @property
    def error(self) -> str:
        """The one line of its error."""
        (line,) = self.err.splitlines()
        assert line.startswith("error: ")
        return line.removeprefix("error: ")


async def shashin(
    *arguments: object,
    state: Path,
    env: Mapping[str, str] | None = None,
    ends_with: int | None = 0,
    typed: str | None = None,
    program: Sequence[str] = (str(COMMAND),),
) -> Finished:
    """Run the command in a state folder until it ends, with that exit code; None: with any.

    ``typed`` is input at a terminal; None: stdin is not a terminal. ``program`` is run in place of
    the installed command.
    """
    own = {key: value for key, value in os.environ.items() if not key.startswith("SHASHIN_")}
    person, terminal = os.openpty()
    process = await asyncio.create_subprocess_exec(
        *program,
        *map(str, arguments),
        env={**own, "SHASHIN_STATE": str(state), **(env or {})},
        cwd=state.parent,
        stdin=asyncio.subprocess.DEVNULL if typed is None else terminal,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        if typed is not None:
            os.write(person, typed.encode())
        # Hangs if a process left running keeps the output open.
        out, err = await asyncio.wait_for(process.communicate(), LIMIT_SECONDS)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        os.close(person)
        os.close(terminal)
    assert process.returncode is not None
    finished = Finished(process.returncode, out.decode(), err.decode())
    assert ends_with in {None, finished.code}, finished
    assert "Traceback" not in finished.err
    return finished


async def until_searched(*arguments: object, state: Path) -> dict[str, Any]:
    """Search until an answer is complete: a busy machine may miss a deadline; returns the JSON."""

    async def complete() -> dict[str, Any] | None:
        finished = await shashin("search", *arguments, "--json", state=state, ends_with=None)
        if finished.code == 1:
            return None
        assert finished.code == 0, finished
        document: dict[str, Any] = finished.document
        whole = document["coverage"]["complete"] and not document["failed_endpoints"]
        return document if whole else None

    answer: dict[str, Any] = await until(complete, "a search is complete")
    return answer
