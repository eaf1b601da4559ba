"""The system of one state folder: its addresses and paths, start and stop."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from shashin.errors import UserError
from shashin.local import control
from shashin.local.given_settings import THUMBNAILS, settings_passed_on
from shashin.local.kafka import DEFAULT_PORT, EmbeddedKafka
from shashin.local.plan import (
    DOWNLOADER,
    EMBEDDER,
    ROUTER,
    RunningModel,
    SystemConfig,
    plan_processes,
)
from shashin.local.ports import choosing_ports, free_port, is_free
from shashin.local.processes import (
    ProcessRow,
    ProcessSpec,
    discovery_path,
    is_service,
    process_table,
    read_plan,
)
from shashin.local.progress import SILENT, Progress
from shashin.model.loading import ModelDescription, describe_model, published_id
from shashin.model_space import ModelSpace
from shashin.objectstore.open import open_object_store, opened_object_store
from shashin.repository.active_model import ActiveModels
from shashin.repository.published_models import PublishedModels

DEFAULT_STATE = Path(".shashin")
"""Default state folder, relative to the working directory."""

DEFAULT_MODEL = "demo-v1"

_WAITING = "waiting for another system on this machine to start"
_LOADING = "loading the model"
_TOPICS = "creating topics"
_SERVICES = "services ready"
_NAMED_AT_MOST = 3
"""Maximum number of unready processes that a progress line names."""


@dataclass(frozen=True)
class UpOptions:
    """Options of ``shashin up``."""

    kafka: str | None = None
    repository: str | None = None
    """URI of the model repository; None for a folder in the state folder."""
    bucket_seconds: int = 3600
    grace_seconds: float = 60.0
    partitions: int = 4
    model: str = DEFAULT_MODEL
    also: str | None = None
    """A second model that runs beside it."""
    canary: bool = False
    """Whether a canary measures freshness with listings of its own; who counts events goes without."""


class System:
    """The processes and data of one state folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self._well_known_ports = self.folder == DEFAULT_STATE.absolute()
        """Whether to prefer the well-known ports: only for the default state folder, so that other
        systems do not take those ports while one of its processes is down."""

    @property
    def model_id(self) -> str:
        """The id of the model that this system uses."""
        plan = read_plan(self.folder)
        return str(plan.asked["model_id"]) if plan is not None else DEFAULT_MODEL

    @property
    def discovery(self) -> str:
        """URI of the file that lists the ready endpoints."""
        return discovery_path(self.folder).as_uri()

    @property
    def photos(self) -> Path:
        """Folder of published photos, readable by the downloader."""
        return self.folder / "photos"

    @property
    def repository(self) -> str:
        """URI of the model repository."""
        plan = read_plan(self.folder)
        asked = plan.asked.get("repository") if plan is not None else None
        return str(asked) if asked else self._own_repository

    @property
    def _own_repository(self) -> str:
        return (self.folder / "repository").as_uri()

    def thumbnails(self) -> str:
        """Return the URI of the store of thumbnails; empty if there is none.

        Raises:
            UserError: if nothing was ever started here.
        """
        return self._process(DOWNLOADER).env.get(THUMBNAILS, "")

    @property
    def logs(self) -> Path:
        """Folder of the process logs."""
        return self.folder / "logs"

    def kafka_address(self) -> str:
        """Return the bootstrap servers.

        Raises:
            UserError: if nothing was ever started here.
        """
        plan = read_plan(self.folder)
        own = plan.asked.get("kafka") if plan is not None else None
        if own:
            return str(own)
        if self._kafka().identity is None:
            raise self._never_started()
        return self._kafka().bootstrap

    def router_address(self) -> str:
        """Return the router's gRPC address, HOST:PORT.

        Raises:
            UserError: if nothing was ever started here.
        """
        return self._grpc_address(ROUTER)

    def page_url(self) -> str | None:
        """Return the URL of the search page; None if an earlier version started the router.

        Raises:
            UserError: if nothing was ever started here.
        """
        if (address := self._process(ROUTER).addresses.get("rest")) is None:
            return None
        plan = read_plan(self.folder)
        with_tls = plan is not None and plan.asked.get("SHASHIN_TLS_CERTIFICATE_FILE")
        return f"{'https' if with_tls else 'http'}://{address}/"

    def embedder_address(self) -> str:
        """Return the embedder's gRPC address, HOST:PORT.

        Raises:
            UserError: if nothing was ever started here.
        """
        return self._grpc_address(EMBEDDER)

    def _grpc_address(self, name: str) -> str:
        return self._process(name).addresses["grpc"]

    def _process(self, name: str) -> ProcessSpec:
        plan = read_plan(self.folder)
        for spec in plan.processes if plan is not None else ():
            if spec.name == name:
                return spec
        raise self._never_started()

    def _never_started(self) -> UserError:
        return UserError(
            f"nothing has been started in {self.folder}: `shashin up` starts everything"
        )

    def pids(self) -> Mapping[str, int]:
        """Return the pid of every running process."""
        return {row.name: row.pid for row in self.processes() if row.pid is not None}

    def processes(self) -> list[ProcessRow]:
        """Return the state of every process; empty if nothing is running."""
        return process_table(self.folder)

    async def start(self, options: UpOptions, progress: Progress = SILENT) -> bool:
        """Start everything and wait until it is ready; returns False if it was already running.

        Raises:
            UserError: if it is running with other options, or a port or folder cannot be used.
            ProcessFailed: if a process dies or is not ready in time.
            KafkaUnavailable: if the user's own Kafka does not respond.
        """
        if options.repository is not None:
            open_object_store(options.repository)  # rejects an invalid URI
        options = replace(
            options,
            model=_absolute(options.model),
            also=None if options.also is None else _absolute(options.also),
        )
        async with choosing_ports(lambda: progress.set(_WAITING)):
            progress.finish(_WAITING)
            repository = options.repository or self._own_repository
            model = await _described(options.model, repository, progress)
            also = (
                None
                if options.also is None
                else await _described(options.also, repository, progress)
            )
            if also is not None and also.model_id == model.model_id:
                raise UserError(
                    f"{options.also} is model {also.model_id!r}, as {options.model} is: expected "
                    "another model to run beside it"
                )
            return await self._start(options, model, also, progress)

    async def _start(
        self,
        options: UpOptions,
        model: ModelDescription,
        also: ModelDescription | None,
        progress: Progress,
    ) -> bool:
        from shashin.kafka.topic_admin import ensure_topics

        requested = {
            **asdict(options),
            "model_id": model.model_id,
            **settings_passed_on(os.environ),
        }
        if control.supervisor_runs(self.folder):
            control.require_same_options(self.folder, requested)
        kafka_started = False
        kafka = options.kafka
        if kafka is None:
            kafka_started = await self._kafka().start(progress)
            kafka = self._kafka().bootstrap
        try:
            progress.set(_TOPICS)
            await ensure_topics(kafka, partitions=options.partitions, correct=options.kafka is None)
            progress.finish(_TOPICS)
            repository = options.repository or self._own_repository
            # The first model of a repository is active; another one has to be activated.
            async with opened_object_store(repository) as store:
                await ActiveModels(store).activate_first(
                    ModelSpace(model.model_id, model.dimensions), at=time.time()
                )
            config = SystemConfig(
                kafka=kafka,
                repository=repository,
                model=options.model,
                model_id=model.model_id,
                dimensions=model.dimensions,
                bucket_seconds=options.bucket_seconds,
                grace_seconds=options.grace_seconds,
                canary=options.canary,
                also=None
                if also is None or options.also is None
                else RunningModel(options.also, also.model_id, also.dimensions),
            )
            specs = plan_processes(
                self.folder,
                config,
                choose_port=_Ports(prefer=self._well_known_ports),
                environment=os.environ,
            )
            progress.set(_SERVICES, 0, len(specs))
            return await control.up(
                self.folder,
                specs,
                embedded_kafka=options.kafka is None,
                options=requested,
                repository=repository,
                on_rows=lambda rows: _report(rows, progress),
            )
        except BaseException:
            if kafka_started:
                await self._kafka().stop()
            raise

    async def stop(self) -> bool:
        """Stop everything, the embedded Kafka last; returns False if nothing was running."""
        ran = await control.down(self.folder)
        return await self._kafka().stop() or ran

    def _kafka(self) -> EmbeddedKafka:
        return EmbeddedKafka(
            self.folder, default_port=DEFAULT_PORT if self._well_known_ports else None
        )

    async def start_kafka(self, progress: Progress) -> str:
        """Start only the embedded Kafka; returns its address."""
        await self._kafka().start(progress)
        return self._kafka().bootstrap

    async def stop_kafka(self) -> bool:
        """Stop only the embedded Kafka; returns False if it was not running.

        Raises:
            UserError: if services that need it are running.
        """
        if control.supervisor_runs(self.folder):
            raise UserError(
                f"services in {self.folder} are running and need kafka: `shashin down` stops everything"
            )
        return await self._kafka().stop()


class _Ports:
    """Chooses the preferred port if it is free, else another one; never the same port twice."""

    def __init__(self, *, prefer: bool) -> None:
        self._prefer = prefer
        self._given: set[int] = set()

    def __call__(self, preferred: int) -> int:
        port = preferred if self._prefer else free_port()
        while port in self._given or not is_free(port):
            port = free_port()
        self._given.add(port)
        return port


def _absolute(model: str) -> str:
    """Return the path of a checkpoint for the embedder, which has another working directory."""
    return str(Path(model).absolute()) if Path(model).is_file() else model


async def _described(model: str, repository: str, progress: Progress) -> ModelDescription:
    """Describe a model; one that is neither the default nor published has to be loaded for that."""
    if (model_id := published_id(model)) is not None:
        async with opened_object_store(repository) as store:
            published = await PublishedModels(store).read(model_id)
        return ModelDescription(published.model_id, published.dimensions)
    if model == DEFAULT_MODEL:
        return describe_model(model)
    progress.set(_LOADING)
    described = describe_model(model)
    progress.finish(_LOADING)
    return described


def _report(rows: Sequence[ProcessRow], progress: Progress) -> None:
    services = [row for row in rows if is_service(row)]
    if services:
        ready = sum(row.well for row in services)
        progress.set(_SERVICES, ready, len(services), note=waiting_for(services))


def waiting_for(services: Sequence[ProcessRow]) -> str:
    """Return which services are not ready yet; empty if there are none or too many to list."""
    unready = [row for row in services if not row.well]
    if not 0 < len(unready) <= _NAMED_AT_MOST:
        return ""
    return "waiting for " + ", ".join(map(_named, unready))


def _named(row: ProcessRow) -> str:
    if row.last_restart is None:
        return row.name
    return f"{row.name}, restarted because {row.last_restart.reason}"
