"""The command ``shashin`` as a process, with a person at its terminal where it asks one."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Ended:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        """Return the document that it printed; it has to have ended well."""
        assert self.code == 0, self.err
        return json.loads(self.out)


async def shashin(*args: object, typed: str | None = None, **settings: object) -> Ended:
    """Run the command until it ends; ``typed`` is what a person types at a terminal."""
    own = {key: value for key, value in os.environ.items() if not key.startswith("SHASHIN_")}
    told = {f"SHASHIN_{key.upper()}": str(value) for key, value in settings.items()}
    person, terminal = os.openpty()
    try:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "shashin.cli",
            *map(str, args),
            stdin=terminal if typed is not None else asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**own, **told},
            cwd=ROOT,
        )
        if typed is not None:
            os.write(person, typed.encode())
        out, err = await process.communicate()
    finally:
        os.close(person)
        os.close(terminal)
    assert process.returncode is not None
    return Ended(process.returncode, out.decode(), err.decode())
