"""The processes of a local system, with their settings."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from shashin.errors import SettingsError, UserError
from shashin.local.given_settings import PHOTO_ROOTS
from shashin.local.ports import HOST
from shashin.local.processes import EndpointSpec, ProcessSpec, discovery_path
from shashin.runtime.settings import parse_folders
from shashin.tiers import LIVE, SEALED_TIERS

ROUTER, EMBEDDER, INDEXER = "router", "embedder", "indexer"

_PREFERRED_PORTS = {ROUTER: 50051, EMBEDDER: 50052, INDEXER: 50053} | {
    f"index-server-{tier}": port for port, tier in enumerate(SEALED_TIERS, start=50054)
}
_HTTP_PORTS_FROM = 9701

_ONE_THREAD = {
    # Used unless the user sets them. Otherwise every process starts one linear-algebra thread per
    # core that it never needs.
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    # Memory of short-lived threads is returned to the system.
    "MALLOC_ARENA_MAX": "2",
}


@dataclass(frozen=True)
class SystemConfig:
    """Configuration of a local system."""

    kafka: str
    """HOST:PORT."""
    repository: str
    """URI of the model repository."""
    model: str
    """The embedder's model: a name, ``torchvision:NAME`` or the path of a checkpoint."""
    model_id: str
    dimensions: int
    bucket_seconds: int
    grace_seconds: float


def work_folder(state: Path, process: str) -> Path:
    """Return the folder that a process deletes from as it likes."""
    return state / "work" / process


def plan_processes(
    state: Path,
    config: SystemConfig,
    *,
    choose_port: Callable[[int], int],
    environment: Mapping[str, str],
) -> list[ProcessSpec]:
    """Return every process of the system.

    ``choose_port`` takes the preferred port and returns a free one. The processes also get the
    ``environment``, whose settings are combined with the plan's own here.

    Raises:
        SettingsError: if a setting in the environment is invalid.
    """
    model = {"SHASHIN_MODEL_ID": config.model_id}
    vectors = {**model, "SHASHIN_DIMENSIONS": str(config.dimensions)}
    discovery = {"SHASHIN_DISCOVERY": discovery_path(state).as_uri()}
    processes = _Processes(config, choose_port, environment)
    processes.add(
        "downloader",
        {
            # Published photos are copied to this folder.
            PHOTO_ROOTS: _photo_roots(state / "photos", environment.get(PHOTO_ROOTS, "")),
        },
    )
    processes.add(EMBEDDER, {"SHASHIN_MODEL": config.model}, serves=(EMBEDDER, None))
    processes.add(
        INDEXER,
        {
            **vectors,
            **discovery,
            "SHASHIN_REPOSITORY": config.repository,
            "SHASHIN_WORK_FOLDER": str(work_folder(state, INDEXER)),
            "SHASHIN_HIDDEN_FOLDER": str(work_folder(state, f"{INDEXER}-hidden")),
            "SHASHIN_BUCKET_SECONDS": str(config.bucket_seconds),
            "SHASHIN_GRACE_SECONDS": str(config.grace_seconds),
        },
        serves=(INDEXER, LIVE),
    )
    for tier in SEALED_TIERS:
        name = f"index-server-{tier}"
        processes.add(
            name,
            {
                **vectors,
                "SHASHIN_TIER": tier,
                "SHASHIN_REPOSITORY": config.repository,
                "SHASHIN_WORK_FOLDER": str(work_folder(state, name)),
            },
            serves=("index-server", tier),
            package="index_server",
        )
    processes.add(
        "image-builder",
        {**model, **discovery, "SHASHIN_REPOSITORY": config.repository},
        package="image_builder",
    )
    processes.add(ROUTER, {**vectors, **discovery}, has_grpc=True)
    return processes.specs


def _photo_roots(own: Path, given: str) -> str:
    """Return the folder of published photos and the user's folders as a setting."""
    try:
        folders = [own, *parse_folders(given)]
    except UserError as error:
        raise SettingsError(f"invalid settings: {PHOTO_ROOTS}={given!r}: {error.message}") from None
    return json.dumps(list(dict.fromkeys(map(str, folders))))


class _Processes:
    """Adds the ports, probes and common settings to each process."""

    def __init__(
        self,
        config: SystemConfig,
        choose_port: Callable[[int], int],
        environment: Mapping[str, str],
    ) -> None:
        self._threads = {k: v for k, v in _ONE_THREAD.items() if k not in environment}
        self._kafka = config.kafka
        self._model_id = config.model_id
        self._choose_port = choose_port
        self.specs: list[ProcessSpec] = []

    def add(
        self,
        name: str,
        env: dict[str, str],
        *,
        serves: tuple[str, str | None] | None = None,
        has_grpc: bool = False,
        package: str = "",
    ) -> None:
        http = f"{HOST}:{self._choose_port(_HTTP_PORTS_FROM + len(self.specs))}"
        addresses = {"http": http}
        settings = {
            **self._threads,
            "SHASHIN_KAFKA": self._kafka,
            "SHASHIN_HTTP_HOST": HOST,
            "SHASHIN_HTTP_PORT": http.rpartition(":")[2],
            **env,
        }
        if serves is not None or has_grpc:
            port = self._choose_port(_PREFERRED_PORTS[name])
            addresses = {"grpc": f"{HOST}:{port}", **addresses}
            settings |= {"SHASHIN_GRPC_HOST": HOST, "SHASHIN_GRPC_PORT": str(port)}
        self.specs.append(
            ProcessSpec(
                name=name,
                argv=(sys.executable, "-m", f"services.{package or name}"),
                env=settings,
                ready_url=f"http://{http}/readyz",
                live_url=f"http://{http}/livez",
                addresses=addresses,
                endpoints=()
                if serves is None
                else (EndpointSpec(serves[0], addresses["grpc"], serves[1], self._model_id),),
            )
        )
