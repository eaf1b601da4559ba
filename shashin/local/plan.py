"""Which processes one machine runs, and what each is told."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from shashin.local.ports import HOST
from shashin.local.processes import EndpointSpec, ProcessSpec, discovery_path
from shashin.tiers import HOURLY, LIVE

ROUTER, EMBEDDER, INDEXER = "router", "embedder", "indexer"

_PREFERRED_PORTS = {ROUTER: 50051, EMBEDDER: 50052, INDEXER: 50053, "index-server-hourly": 50054}
_HTTP_PORTS_FROM = 9701

_ONE_THREAD = {
    # Every process would start a thread a core for linear algebra that it never needs.
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    # Memory of short-lived threads goes back to the system.
    "MALLOC_ARENA_MAX": "2",
}


@dataclass(frozen=True)
class Wanted:
    """What a machine's system is to be like."""

    kafka: str
    """HOST:PORT."""
    repository: str
    """URI of the model repository."""
    model: str
    """What the embedder loads: a name, ``torchvision:NAME`` or a checkpoint's path."""
    model_id: str
    dimensions: int
    bucket_seconds: int
    grace_seconds: float


def plan_processes(
    state: Path, wanted: Wanted, *, choose_port: Callable[[int], int]
) -> list[ProcessSpec]:
    """Return every process of a machine.

    ``choose_port`` is asked with the port that would be nice and returns one that is free.
    """
    model = {"SHASHIN_MODEL_ID": wanted.model_id}
    vectors = {**model, "SHASHIN_DIMENSIONS": str(wanted.dimensions)}
    discovery = {"SHASHIN_DISCOVERY": discovery_path(state).as_uri()}
    processes = _Processes(wanted, choose_port)
    processes.add(
        "downloader",
        {
            # Whoever publishes on this machine may read its files anyway: the copies are in here.
            "SHASHIN_PHOTO_ROOTS": os.pathsep.join([str(state / "photos")]),
        },
    )
    processes.add(EMBEDDER, {"SHASHIN_MODEL": wanted.model}, serves=(EMBEDDER, None))
    processes.add(
        INDEXER,
        {
            **vectors,
            **discovery,
            "SHASHIN_REPOSITORY": wanted.repository,
            "SHASHIN_WORK_FOLDER": str(state / "work" / INDEXER),
            "SHASHIN_BUCKET_SECONDS": str(wanted.bucket_seconds),
            "SHASHIN_GRACE_SECONDS": str(wanted.grace_seconds),
        },
        serves=(INDEXER, LIVE),
    )
    processes.add(
        "index-server-hourly",
        {
            **vectors,
            "SHASHIN_TIER": HOURLY,
            "SHASHIN_REPOSITORY": wanted.repository,
            "SHASHIN_WORK_FOLDER": str(state / "work" / "index-server-hourly"),
        },
        serves=("index-server", HOURLY),
        package="index_server",
    )
    processes.add(
        "image-builder", {**model, "SHASHIN_REPOSITORY": wanted.repository}, package="image_builder"
    )
    processes.add(ROUTER, {**vectors, **discovery}, answers_grpc=True)
    return processes.specs


class _Processes:
    """Gives each process its ports, its probes and what all are told."""

    def __init__(self, wanted: Wanted, choose_port: Callable[[int], int]) -> None:
        self._kafka = wanted.kafka
        self._model_id = wanted.model_id
        self._choose_port = choose_port
        self.specs: list[ProcessSpec] = []

    def add(
        self,
        name: str,
        env: dict[str, str],
        *,
        serves: tuple[str, str | None] | None = None,
        answers_grpc: bool = False,
        package: str = "",
    ) -> None:
        http = f"{HOST}:{self._choose_port(_HTTP_PORTS_FROM + len(self.specs))}"
        addresses = {"http": http}
        told = {
            **_ONE_THREAD,
            "SHASHIN_KAFKA": self._kafka,
            "SHASHIN_HTTP_HOST": HOST,
            "SHASHIN_HTTP_PORT": http.rpartition(":")[2],
            **env,
        }
        if serves is not None or answers_grpc:
            port = self._choose_port(_PREFERRED_PORTS[name])
            addresses = {"grpc": f"{HOST}:{port}", **addresses}
            told |= {"SHASHIN_GRPC_HOST": HOST, "SHASHIN_GRPC_PORT": str(port)}
        self.specs.append(
            ProcessSpec(
                name=name,
                argv=(sys.executable, "-m", f"services.{package or name}"),
                env=told,
                ready_url=f"http://{http}/readyz",
                live_url=f"http://{http}/livez",
                addresses=addresses,
                endpoints=()
                if serves is None
                else (EndpointSpec(serves[0], addresses["grpc"], serves[1], self._model_id),),
            )
        )
