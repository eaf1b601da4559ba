"""Processes left behind by a killed supervisor."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from pathlib import Path

import psutil

from shashin.local.identity import ProcessIdentity
from shashin.local.processes import recorded_processes, supervisor_identity

_GRACE_SECONDS = 10.0


async def end_leftovers(state_folder: Path) -> int:
    """End the remaining processes of an earlier supervisor; returns their number.

    Only for a state folder whose supervisor no longer runs. Kafka is not among them: it is meant
    to outlive the supervisor.
    """
    found = {identity for identity in recorded_processes(state_folder) if identity.is_running()}
    supervisor = supervisor_identity(state_folder)
    if supervisor is not None and not supervisor.is_running():
        found |= _session_of(supervisor)
    await asyncio.gather(*(identity.end(grace=_GRACE_SECONDS, group=True) for identity in found))
    return len(found)


def _session_of(supervisor: ProcessIdentity) -> set[ProcessIdentity]:
    """Return the processes in a dead supervisor's session, including grandchildren.

    A session id is not reused while a member of the session is alive.
    """
    found: set[ProcessIdentity] = set()
    if psutil.pid_exists(supervisor.pid):
        return found
    for pid in psutil.pids():
        with suppress(OSError):
            if os.getsid(pid) != supervisor.pid:
                continue
            identity = ProcessIdentity.of(pid)
            if identity is not None and identity.create_time >= supervisor.create_time - 1:
                found.add(identity)
    return found
