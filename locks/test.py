"""Starts every service as its container will: with its own lock, its own code, and nothing else.

A checkout has every library, so a service that imports one that its lock lacks only fails where it
is deployed. Here each service gets a fresh environment with its hashed lock, and a copy of the code
of its container. There it imports every module that it reaches, those that it imports only on use
included, and then starts against a real Kafka and an empty repository until it is ready.

Run as ``make locks-test``; ``make locks-test ARGS="router indexer"`` tries only these.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import grimp
import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from shashin.kafka.topics import ensure_topics
from shashin.local.kafka import EmbeddedKafka
from shashin.local.ports import HOST, free_port

LOCKS = Path(__file__).parent
ROOT = LOCKS.parent

CONTROLLER = "controller"
"""Has a lock, but no code of its own yet: what it needs is ``shashin.runtime``."""

SERVES_GRPC = ("embedder", "indexer", "index_server", "router")

NOT_READY_ALONE = ("router",)
"""Wait for other services: ready but for the one condition that names them is all they can be."""

_READY_SECONDS = 120.0
_STOP_SECONDS = 30.0
_POLL_SECONDS = 0.1
_LOG_LINES = 25

IMPORT_ALL = """
import importlib, json, os, sys
from importlib.metadata import PackageNotFoundError, version
for name in json.loads(sys.argv[1]):
    try:
        importlib.import_module(name)
    except Exception as error:
        sys.exit(f"importing {name}: {error}")
if "shashin.shards.kinds.registry" in sys.modules:
    # A manifest may name any kind, and its module is imported then.
    from shashin.shards.kinds.registry import index_kind, kind_names
    for name in kind_names():
        index_kind(name)
try:
    version("google-cloud-storage")
except PackageNotFoundError:
    pass
else:
    # Nothing is sent: an emulator needs no credentials, and nobody asks it for anything.
    os.environ["STORAGE_EMULATOR_HOST"] = "http://127.0.0.1:9"
    from shashin.objectstore.open import open_object_store
    open_object_store("gs://bucket/folder")
"""
"""Imports the modules in argv, and what is imported by name or on use only."""


class Failed(Exception):
    """A service does not work with what its container has; says how, with the end of its log."""


def services() -> list[str]:
    """Return the name of every service's package."""
    return sorted(path.parent.name for path in (ROOT / "services").glob("*/__main__.py"))


def reached_modules(service: str) -> list[str]:
    """Return the service's modules, and those of ``shashin`` that they import, however late."""
    # No cache: it takes a file that another commit replaced within a second for the old one.
    graph = grimp.build_graph(
        "shashin", "services", exclude_type_checking_imports=True, cache_dir=None
    )
    package = "shashin.runtime" if service == CONTROLLER else f"services.{service}"
    own = {package} | graph.find_descendants(package)
    return sorted(own | graph.find_upstream_modules(package, as_package=True))


def copy_code(service: str, folder: Path) -> None:
    """Copy what the container has: ``shashin`` as its wheel is built, and the service's package."""
    pycache = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "shashin", folder / "shashin", ignore=pycache)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    for source, target in wheel["force-include"].items():
        if (ROOT / source).is_file():  # a folder is code of others
            (folder / target).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / source, folder / target)
    if service != CONTROLLER:
        package = folder / "services" / service
        shutil.copytree(ROOT / "services" / service, package, ignore=pycache)
        shutil.copy(ROOT / "services" / "__init__.py", folder / "services")


def run(what: str, *command: str, **options: object) -> None:
    """Run a command.

    Raises:
        Failed: with the end of its output.
    """
    ended = subprocess.run(  # type: ignore[call-overload]
        command,
        check=False,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        **options,
    )
    if ended.returncode:
        raise Failed(f"{what} failed\n{quoted(ended.stdout)}")


def quoted(log: str) -> str:
    """Return the last lines of a log, indented."""
    return "\n".join(f"    | {line}" for line in log.splitlines()[-_LOG_LINES:])


def install(service: str, environment: Path) -> int:
    """Make an environment with the service's lock in it; returns how many packages it has."""
    lock = LOCKS / f"{service.replace('_', '-')}.txt"
    if not lock.exists():
        raise Failed(f"{lock} is missing: name the service in locks/lock.py and run `make lock`")
    uv, python = (sys.executable, "-m", "uv"), str(environment / "bin" / "python")
    # The lock decides which build of torch is installed, not the choice made for the checkout.
    env = {name: value for name, value in os.environ.items() if name != "UV_TORCH_BACKEND"}
    run("making an environment", *uv, "venv", "--python", sys.executable, str(environment), env=env)
    run(
        f"installing {lock.name}",
        *(*uv, "pip", "install", "--python", python),
        *("--require-hashes", "--no-deps", "-r", str(lock)),
        env=env,
    )
    run("checking what is installed", *uv, "pip", "check", "--python", python, env=env)
    return len(list(environment.glob("lib/python*/site-packages/*.dist-info")))


class ServiceProcess:
    """A service that was started in its own environment."""

    def __init__(self, service: str, python: Path, code: Path, settings: Mapping[str, str]) -> None:
        self._name = service
        self._log = code / "service.log"
        self._http = f"{HOST}:{settings['SHASHIN_HTTP_PORT']}"
        self._grpc = f"{HOST}:{settings['SHASHIN_GRPC_PORT']}"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [str(python), "-m", f"services.{service}"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=code,
                env=bare_environment(code, settings),
            )

    def until_ready(self) -> str:
        """Wait until it is as ready as it can be alone; returns what it waits for then, if anything.

        Every probe has to say 200, and the port of gRPC, where it has one, that it serves. What
        cannot be ready alone has to live, to serve, and to name one condition that does not hold.
        """
        self._until(lambda: self._page("livez")[0] == 200, "/livez")
        if self._name in SERVES_GRPC:
            self._until(self._serves_grpc, f"gRPC on {self._grpc}")
        if self._name not in NOT_READY_ALONE:
            self._until(lambda: self._page("readyz")[0] == 200, "/readyz")
            return ""
        self._until(lambda: len(self._page("readyz")[1].splitlines()) == 1, "/readyz")
        return self._page("readyz")[1].strip()

    def stop(self) -> None:
        """Have it end by itself.

        Raises:
            Failed: when it does not, or with another exit code than 0.
        """
        self._process.send_signal(signal.SIGTERM)
        try:
            code = self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            raise self._failed(f"does not end {_STOP_SECONDS:.0f} s after SIGTERM") from None
        if code:
            raise self._failed(f"ended with exit code {code} on SIGTERM")

    def kill(self) -> None:
        """End it, whatever it does."""
        self._process.kill()
        self._process.wait()

    def _until(self, holds: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + _READY_SECONDS
        while not holds():
            if (code := self._process.poll()) is not None:
                raise self._failed(f"died with exit code {code} at its start")
            if time.monotonic() > deadline:
                raise self._failed(
                    f"still does not answer {what} after {_READY_SECONDS:.0f} s; "
                    f"/readyz says: {self._page('readyz')[1].strip() or 'nothing'}"
                )
            time.sleep(_POLL_SECONDS)

    def _page(self, path: str) -> tuple[int, str]:
        """Return status and text of a page of its HTTP port; status 0 while nobody answers."""
        with closing(HTTPConnection(self._http, timeout=5)) as connection:
            try:
                connection.request("GET", f"/{path}")
                answer = connection.getresponse()
                return answer.status, answer.read().decode()
            except (OSError, HTTPException):
                return 0, ""

    def _serves_grpc(self) -> bool:
        with grpc.insecure_channel(self._grpc) as channel:
            try:
                answer = health_pb2_grpc.HealthStub(channel).Check(
                    health_pb2.HealthCheckRequest(), timeout=5
                )
            except grpc.RpcError:
                return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    def _failed(self, what: str) -> Failed:
        return Failed(f"{what}; the end of its log:\n{quoted(self._log.read_text())}")


def bare_environment(home: Path, settings: Mapping[str, str]) -> dict[str, str]:
    """Return environment variables that let nothing of the checkout or the user be found."""
    return {"PATH": os.defpath, "HOME": str(home), "OMP_NUM_THREADS": "1", **settings}


def settings_for(kafka: str, folder: Path) -> dict[str, str]:
    """Return settings that do for any service: each takes those that it knows."""
    return {
        "SHASHIN_KAFKA": kafka,
        "SHASHIN_HTTP_PORT": str(free_port()),
        "SHASHIN_GRPC_PORT": str(free_port()),
        "SHASHIN_REPOSITORY": (folder / "repository").as_uri(),
        "SHASHIN_WORK_FOLDER": str(folder / "work"),
        "SHASHIN_DISCOVERY": (folder / "discovery.json").as_uri(),
    }


def try_service(service: str, kafka: str, folder: Path) -> str:
    """Install, import, start and stop a service in ``folder``; returns what happened.

    Raises:
        Failed: saying what did not work.
    """
    watch = Stopwatch()
    environment, code = folder / "environment", folder / "code"
    python = environment / "bin" / "python"
    happened = [f"{install(service, environment)} packages in {watch.lap()}"]
    copy_code(service, code)
    modules = reached_modules(service)
    run(
        "importing all that it reaches",
        *(str(python), "-c", IMPORT_ALL, json.dumps(modules)),
        cwd=code,
        env=bare_environment(code, {}),
    )
    happened.append(f"{len(modules)} modules in {watch.lap()}")
    if service == CONTROLLER:
        return ", ".join(happened)
    process = ServiceProcess(service, python, code, settings_for(kafka, folder))
    try:
        waits_for = process.until_ready()
        what = f"serves, and waits for others ({waits_for}), after" if waits_for else "ready in"
        happened.append(f"{what} {watch.lap()}")
        process.stop()
        happened.append(f"ended in {watch.lap()}")
    finally:
        process.kill()
    return ", ".join(happened)


class Stopwatch:
    """Tells how long each of several steps took."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def lap(self) -> str:
        """Return the time since the last lap."""
        before, self._last = self._last, time.monotonic()
        return f"{self._last - before:.1f} s"


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Make a folder beside .venv, where uv can link files from its cache as it did for that one."""
    build = ROOT / "build"
    build.mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="locks-test-", dir=build))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def running_kafka(folder: Path) -> Iterator[str]:
    """Run a Kafka with every topic; yields its address."""
    watch = Stopwatch()
    kafka = EmbeddedKafka(folder, port=free_port())
    asyncio.run(kafka.start())
    try:
        asyncio.run(ensure_topics(kafka.bootstrap, partitions=2))
        tell(f"kafka answers at {kafka.bootstrap} after {watch.lap()}")
        yield kafka.bootstrap
    finally:
        asyncio.run(kafka.stop())


def tell(text: str) -> None:
    """Print a line at once: the whole takes minutes."""
    print(f"locks-test: {text}", flush=True)


def wanted_services(names: Sequence[str]) -> list[str]:
    """Return the services of these names, every one unless some are named."""
    known = [*services(), CONTROLLER]
    wanted = [name.replace("-", "_") for name in names] or known
    if unknown := set(wanted) - set(known):
        sys.exit(f"locks-test: no service is named {', '.join(unknown)}: expected {known}")
    return wanted


def main() -> None:
    """Try the services; exits with 1 when one does not work."""
    parser = argparse.ArgumentParser(prog="make locks-test")
    parser.add_argument("services", nargs="*", help="those to try; all unless given")
    wanted = wanted_services(parser.parse_args().services)
    failed = 0
    whole = Stopwatch()
    with scratch_folder() as scratch, running_kafka(scratch / "kafka") as kafka:
        for service in wanted:
            folder = scratch / service
            try:
                tell(f"{service:<13}  ok  {try_service(service, kafka, folder)}")
            except Failed as failure:
                failed += 1
                tell(f"{service:<13}  FAILED  {failure}")
            shutil.rmtree(folder, ignore_errors=True)
    tell(f"{len(wanted) - failed} passed, {failed} failed in {whole.lap()}")
    if failed:
        sys.exit(1)


if __name__ == "__main__":
    main()
