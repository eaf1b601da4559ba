"""The processes of a local system, with their settings."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from shashin.errors import SettingsError, UserError
from shashin.local.given_settings import PHOTO_ROOTS, THUMBNAILS
from shashin.local.ports import HOST
from shashin.local.processes import EndpointSpec, ProcessSpec, discovery_path
from shashin.runtime.settings import parse_folders
from shashin.tiers import LIVE, SEALED_TIERS

ROUTER, EMBEDDER, INDEXER = "router", "embedder", "indexer"
CANARY, DOWNLOADER = "canary", "downloader"

_PREFERRED_PORTS = {ROUTER: 50051, EMBEDDER: 9752, INDEXER: 9753} | {
    f"index-server-{tier}": port for port, tier in enumerate(SEALED_TIERS, start=9754)
}
"""Of gRPC. The router's is the usual one; the others are below those that systems give to connections, since
a port is chosen seconds before its process listens on it."""

_BESIDE = 10
"""Between the preferred ports of a model and those of the one beside it."""

_REST_PORT = 8080
"""Preferred for the search page and REST, of the router."""

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
class RunningModel:
    """A model of which a system runs embedder, indexer, index servers and image builder."""

    model: str
    """As the embedder takes it."""
    model_id: str
    dimensions: int


@dataclass(frozen=True)
class SystemConfig:
    """Configuration of a local system."""

    kafka: str
    """HOST:PORT."""
    repository: str
    """URI of the model repository."""
    model: str
    """The embedder's model: a name, ``torchvision:NAME``, ``repository:ID`` or the path of a checkpoint."""
    model_id: str
    dimensions: int
    bucket_seconds: int
    grace_seconds: float
    also: RunningModel | None = None
    """A second model beside the system's own; both write to the same repository."""
    canary: bool = False
    """Whether a canary publishes and sells listings of its own all the time."""


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
    processes = _Processes(config, choose_port, environment)
    thumbnails = {THUMBNAILS: environment.get(THUMBNAILS, (state / "thumbnails").as_uri())}
    processes.add(DOWNLOADER, {PHOTO_ROOTS: photo_roots(state, environment), **thumbnails})
    own = RunningModel(config.model, config.model_id, config.dimensions)
    _add_model(processes, state, config, own)
    if config.also is not None:
        _add_model(processes, state, config, config.also, beside=True)
    discovery = {"SHASHIN_DISCOVERY": discovery_path(state).as_uri()}
    router = {**_vectors(own), **discovery, **thumbnails}
    processes.add(ROUTER, router, has_grpc=True, has_rest=True)
    if config.canary:
        processes.add(
            CANARY,
            {
                "SHASHIN_ROUTER": processes.specs[-1].addresses["grpc"],
                "SHASHIN_PHOTOS": (state / "photos" / CANARY).as_uri(),
            },
        )
    return processes.specs


def _vectors(model: RunningModel) -> dict[str, str]:
    return {"SHASHIN_MODEL_ID": model.model_id, "SHASHIN_DIMENSIONS": str(model.dimensions)}


def _add_model(
    processes: _Processes,
    state: Path,
    config: SystemConfig,
    model: RunningModel,
    *,
    beside: bool = False,
) -> None:
    """Add the processes of one model; ``beside`` for a second one."""
    suffix = f"@{model.model_id}" if beside else ""
    vectors, repository = _vectors(model), {"SHASHIN_REPOSITORY": config.repository}
    discovery = {"SHASHIN_DISCOVERY": discovery_path(state).as_uri()}
    indexer = INDEXER + suffix
    processes.add(
        EMBEDDER,
        {"SHASHIN_MODEL": model.model, **repository},
        serves=(EMBEDDER, None),
        suffix=suffix,
        model_id=model.model_id,
        # A second model's indexer begins at the log's end, which is cheapest before its embedder has
        # written anything.
        depends_on=(indexer,) if beside else (),
    )
    processes.add(
        INDEXER,
        {
            **vectors,
            **discovery,
            **repository,
            "SHASHIN_WORK_FOLDER": str(work_folder(state, indexer)),
            "SHASHIN_HIDDEN_FOLDER": str(work_folder(state, f"{indexer}-hidden")),
            "SHASHIN_BUCKET_SECONDS": str(config.bucket_seconds),
            "SHASHIN_GRACE_SECONDS": str(config.grace_seconds),
        },
        serves=(INDEXER, LIVE),
        suffix=suffix,
        model_id=model.model_id,
    )
    for tier in SEALED_TIERS:
        name = f"index-server-{tier}"
        processes.add(
            name,
            {
                **vectors,
                **repository,
                "SHASHIN_TIER": tier,
                "SHASHIN_WORK_FOLDER": str(work_folder(state, name + suffix)),
            },
            serves=("index-server", tier),
            package="index_server",
            suffix=suffix,
            model_id=model.model_id,
        )
    processes.add(
        "image-builder",
        {"SHASHIN_MODEL_ID": model.model_id, **discovery, **repository},
        package="image_builder",
        suffix=suffix,
    )


def photo_roots(state: Path, environment: Mapping[str, str]) -> str:
    """Return the folder of published photos and the user's folders as a setting.

    Raises:
        SettingsError: if the user's setting is invalid.
    """
    given = environment.get(PHOTO_ROOTS, "")
    try:
        folders = [state / "photos", *parse_folders(given)]
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
        self._choose_port = choose_port
        self.specs: list[ProcessSpec] = []

    def add(
        self,
        name: str,
        env: dict[str, str],
        *,
        serves: tuple[str, str | None] | None = None,
        has_grpc: bool = False,
        has_rest: bool = False,
        package: str = "",
        suffix: str = "",
        model_id: str | None = None,
        depends_on: tuple[str, ...] = (),
    ) -> None:
        """Add a process; ``suffix`` tells it from that of the system's own model."""
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
            port = self._choose_port(_PREFERRED_PORTS[name] + (_BESIDE if suffix else 0))
            addresses = {"grpc": f"{HOST}:{port}", **addresses}
            settings |= {"SHASHIN_GRPC_HOST": HOST, "SHASHIN_GRPC_PORT": str(port)}
        if has_rest:
            port = self._choose_port(_REST_PORT)
            addresses["rest"] = f"{HOST}:{port}"
            settings |= {"SHASHIN_REST_HOST": HOST, "SHASHIN_REST_PORT": str(port)}
        self.specs.append(
            ProcessSpec(
                name=name + suffix,
                argv=(sys.executable, "-m", f"services.{package or name}"),
                env=settings,
                ready_url=f"http://{http}/readyz",
                live_url=f"http://{http}/livez",
                addresses=addresses,
                depends_on=depends_on,
                endpoints=()
                if serves is None
                else (EndpointSpec(serves[0], addresses["grpc"], serves[1], model_id),),
            )
        )
