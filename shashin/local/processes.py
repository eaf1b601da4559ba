"""The supervisor's plan and its process table: two files in the state folder."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from shashin.errors import UserError
from shashin.local.identity import Memory, ProcessIdentity, memory_of
from shashin.local.liveness import STALLED_SECONDS, STARTUP_SECONDS
from shashin.local.restart import Restart
from shashin.model_space import ModelSpace
from shashin.runtime.json_file import read_json, write_json

PLAN_FORMAT = 1
SUPERVISOR = "supervisor"
KAFKA = "kafka"

_STALE_SECONDS = 30.0
"""Age of the table from which it is reported; a supervisor writes it every 5 seconds."""

Status = Literal[
    "waiting",  # for its dependencies
    "starting",
    "ready",
    "unready",  # was ready and is not any more
    "restarting",  # died; will be restarted after a pause
    "crash-looping",  # died repeatedly; still restarted, after longer pauses
    "failed",  # cannot run with its settings; not restarted
    "stopped",
]


@dataclass(frozen=True)
class EndpointSpec:
    """An endpoint that discovery lists while its process is ready."""

    role: str
    """indexer, index-server or embedder."""
    address: str
    """HOST:PORT of its gRPC server."""
    tier: str | None = None
    model_id: str | None = None
    """The model that it uses; None if the plan does not specify it."""


@dataclass(frozen=True)
class ProcessSpec:
    """One process to keep running."""

    name: str
    argv: tuple[str, ...]
    env: dict[str, str] = field(default_factory=dict)
    """Overrides the supervisor's environment."""
    ready_url: str | None = None
    """Returns 200 when the process is ready; without one, it is ready once it runs."""
    live_url: str | None = None
    """Returns 200 while the process makes progress; otherwise it is eventually restarted."""
    startup_seconds: float = STARTUP_SECONDS
    """Maximum time from its start to the first 200 from ``live_url``."""
    stalled_seconds: float = STALLED_SECONDS
    """Maximum time without a 200 from ``live_url`` after that."""
    depends_on: tuple[str, ...] = ()
    """Processes that must be ready before this one is first started."""
    addresses: dict[str, str] = field(default_factory=dict)
    """Its HOST:PORT addresses by kind (grpc, http, rest)."""
    endpoints: tuple[EndpointSpec, ...] = ()
    stop_seconds: float = 15.0
    """Time from SIGTERM to SIGKILL."""


@dataclass(frozen=True)
class Plan:
    """The processes to run in a state folder."""

    processes: tuple[ProcessSpec, ...]
    embedded_kafka: bool = False
    """Whether the state folder's own Kafka is watched as well."""
    asked: dict[str, Any] = field(default_factory=dict)
    """The user's options: another start with different options is rejected, not ignored."""
    repository: str = ""
    """URI of the model repository, whose active model is in the discovery file; empty: none is."""
    marks_work_folders: bool = True
    """Whether its version marks work folders; earlier ones used them without a marker."""

    def document(self) -> dict[str, Any]:
        """Return this for JSON."""
        return {"format": PLAN_FORMAT, **asdict(self)}

    @classmethod
    def from_document(cls, document: Any) -> Plan:
        """Parse what ``document()`` returned.

        Raises:
            UserError: if it is something else.
        """
        try:
            if document["format"] != PLAN_FORMAT:
                raise ValueError(f"format {document['format']}, expected {PLAN_FORMAT}")
            processes = tuple(_spec(entry) for entry in document["processes"])
            return cls(
                processes,
                bool(document["embedded_kafka"]),
                dict(document["asked"]),
                str(document.get("repository", "")),
                bool(document.get("marks_work_folders", False)),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"the process plan cannot be read ({error!r})") from error


def _spec(entry: Mapping[str, Any]) -> ProcessSpec:
    return ProcessSpec(
        **{
            **entry,
            "argv": tuple(entry["argv"]),
            "depends_on": tuple(entry["depends_on"]),
            "endpoints": tuple(EndpointSpec(**endpoint) for endpoint in entry["endpoints"]),
        }
    )


def start_order(specs: Sequence[ProcessSpec]) -> list[ProcessSpec]:
    """Return the processes in dependency order, otherwise in the given order.

    Raises:
        UserError: if a name is unknown or duplicated, or dependencies are circular.
    """
    by_name = {spec.name: spec for spec in specs}
    if len(by_name) != len(specs):
        raise UserError("the plan has two processes with the same name")
    ordered: dict[str, ProcessSpec] = {}

    def place(spec: ProcessSpec, waiting: tuple[str, ...]) -> None:
        if spec.name in ordered:
            return
        if spec.name in waiting:
            raise UserError(f"circular process dependency: {' -> '.join([*waiting, spec.name])}")
        for name in spec.depends_on:
            if name not in by_name:
                raise UserError(
                    f"process {spec.name} depends on {name!r}, which is not in the plan"
                )
            place(by_name[name], (*waiting, spec.name))
        ordered[spec.name] = spec

    for spec in specs:
        place(spec, ())
    return list(ordered.values())


@dataclass(frozen=True)
class ProcessRow:
    """Current state of one process."""

    name: str
    status: Status
    detail: str = ""
    """Why it is not ready, or how it ended."""
    problems: str = ""
    """What its /healthz says is wrong, though it is ready; only ``with_problems`` asks."""
    pid: int | None = None
    create_time: float | None = None
    """Seconds since the epoch."""
    restarts: int = 0
    last_restart: Restart | None = None
    """Why and when it was last restarted; None if it never was, or if that was not recorded."""
    rss_bytes: int = 0
    peak_rss_bytes: int = 0
    """Peak resident size, including runs before a restart."""
    addresses: dict[str, str] = field(default_factory=dict)

    @property
    def well(self) -> bool:
        """Whether it is ready."""
        return self.status == "ready"


def is_service(row: ProcessRow) -> bool:
    """Return whether a process is one of Shashin's services."""
    return row.name not in {SUPERVISOR, KAFKA}


def plan_path(state_folder: Path) -> Path:
    """Return the path of the plan."""
    return state_folder / "plan.json"


def processes_path(state_folder: Path) -> Path:
    """Return the path of the process table."""
    return state_folder / "processes.json"


def discovery_path(state_folder: Path) -> Path:
    """Return the path of the file in which the supervisor lists the ready endpoints."""
    return state_folder / "discovery.json"


def log_path(state_folder: Path, name: str) -> Path:
    """Return the path of a process's log."""
    return state_folder / "logs" / f"{name}.log"


def read_plan(state_folder: Path) -> Plan | None:
    """Return the plan; None if there is none.

    Raises:
        UserError: if it cannot be read.
    """
    path = plan_path(state_folder)
    return Plan.from_document(read_json(path)) if path.exists() else None


def write_discovery(
    state_folder: Path, ready: Iterable[ProcessSpec], active: ModelSpace | None = None
) -> None:
    """Write the endpoints of the ready processes, and the active model, to the discovery file."""
    endpoints = [
        {
            "name": spec.name if len(spec.endpoints) == 1 else f"{spec.name}-{number}",
            "role": endpoint.role,
            "tier": endpoint.tier,
            "address": endpoint.address,
            "model_id": endpoint.model_id,
        }
        for spec in ready
        for number, endpoint in enumerate(spec.endpoints)
    ]
    document: dict[str, Any] = {"endpoints": endpoints}
    if active is not None:
        document["active_model"] = {"model_id": active.model_id, "dimensions": active.dimensions}
    write_json(discovery_path(state_folder), document)


def supervisor_identity(state_folder: Path) -> ProcessIdentity | None:
    """Return the supervisor that last wrote the process table, running or not."""
    document = read_json(processes_path(state_folder))
    if not isinstance(document, dict):
        return None
    return ProcessIdentity.from_document(document.get(SUPERVISOR))


def recorded_processes(state_folder: Path) -> list[ProcessIdentity]:
    """Return the supervised processes that were running when the table was written."""
    document = read_json(processes_path(state_folder))
    if not isinstance(document, dict):
        return []
    found = (ProcessIdentity.from_document(entry) for entry in document.get("processes", []))
    return [identity for identity in found if identity is not None]


def process_table(state_folder: Path) -> list[ProcessRow]:
    """Return the current state of every process, with current and peak memory.

    Empty if nothing is running. A process that has ended although the table says otherwise (its
    supervisor was killed) is ``stopped``.
    """
    document = read_json(processes_path(state_folder))
    entries: list[dict[str, Any]] = []
    if isinstance(document, dict):
        recorded = document.get("processes", [])
        if any(map(_identity_running, [*recorded, document.get(SUPERVISOR)])):
            entries = [*recorded, _supervisor_entry(document, state_folder)]
    rows = [_row(entry) for entry in entries]
    if (kafka := _kafka_row(state_folder, document)) is not None:
        rows.insert(0, kafka)
    return rows


def _identity_running(entry: Any) -> bool:
    identity = ProcessIdentity.from_document(entry)
    return identity is not None and identity.is_running()


def _supervisor_entry(document: Mapping[str, Any], state_folder: Path) -> dict[str, Any]:
    entry = document.get(SUPERVISOR) or {}
    written = processes_path(state_folder).stat().st_mtime
    age = time.time() - written
    if age <= _STALE_SECONDS:
        return {"name": SUPERVISOR, "status": "ready", **entry}
    detail = (
        f"has not updated what is shown here for {age:.0f} s: it hangs, or the disk of "
        f"{state_folder} is full"
    )
    return {"name": SUPERVISOR, "status": "unready", "detail": detail, **entry}


def _memory(entry: Mapping[str, Any], identity: ProcessIdentity) -> Memory:
    # The processes that the supervisor started have rows of their own.
    return memory_of(identity.pid, with_children=entry["name"] != SUPERVISOR)


def _row(entry: Mapping[str, Any]) -> ProcessRow:
    identity = ProcessIdentity.from_document(entry)
    running = identity is not None and identity.is_running()
    memory = _memory(entry, identity) if identity is not None and running else None
    status: Status = entry["status"]
    detail = str(entry.get("detail", ""))
    if not running and status in {"starting", "ready", "unready"}:
        status, detail = "stopped", "its supervisor is not running"
    return ProcessRow(
        name=str(entry["name"]),
        status=status,
        detail=detail,
        pid=identity.pid if identity is not None and running else None,
        create_time=identity.create_time if identity is not None and running else None,
        restarts=int(entry.get("restarts", 0)),
        last_restart=Restart.from_document(entry.get("last_restart")),
        rss_bytes=memory.rss if memory else 0,
        peak_rss_bytes=max(memory.peak if memory else 0, int(entry.get("peak_rss_bytes", 0))),
        addresses=dict(entry.get("addresses", {})),
    )


def _kafka_row(state_folder: Path, document: Any) -> ProcessRow | None:
    record = read_json(state_folder / "kafka" / "process.json")
    identity = ProcessIdentity.from_document(record)
    watched = document.get(KAFKA) if isinstance(document, dict) else None
    watched = watched if isinstance(watched, dict) else {}
    if identity is None:
        return None
    running = identity.is_running()
    supervised = (
        _identity_running(document.get(SUPERVISOR)) if isinstance(document, dict) else False
    )
    if not running and not supervised:
        return None
    return _row(
        {
            "name": KAFKA,
            "restarts": watched.get("restarts", 0),
            "last_restart": watched.get("last_restart"),
            "status": watched.get("status", "ready") if supervised else "ready",
            "detail": watched.get("detail", ""),
            "peak_rss_bytes": watched.get("peak_rss_bytes", 0),
            "addresses": {"kafka": f"127.0.0.1:{record['port']}"},
            **identity.document(),
        }
    )
