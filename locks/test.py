"""Starts every service, and builds, as in their containers: with only their own lock and code.

A checkout has every library, so a missing entry in a service's lock would show up only once it is
deployed. Here each service gets a fresh environment with its hashed lock, and a copy of its
container's code. It imports every module that it can reach, including lazily imported ones, and then
starts against a real Kafka and an empty repository until it is ready.

Run as ``make locks-test``; ``make locks-test ARGS="router indexer"`` tests only these.
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
import threading
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import grimp
import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from shashin.kafka.topic_admin import ensure_topics
from shashin.local.kafka import EmbeddedKafka
from shashin.local.ports import HOST, free_port

LOCKS = Path(__file__).parent
ROOT = LOCKS.parent

KUBECONFIG = "kubeconfig.yaml"

BUILDS = "builds"
"""Has a lock and an image, and is no service: the steps of builds, and the command that plans them."""

ELSEWHERE = "shashin.model."
"""Modules that only steps load which embed photos themselves, unlike those on Kubernetes."""

SERVES_GRPC = ("embedder", "indexer", "index_server", "router")

NOT_READY_ALONE = ("router",)
"""Depend on other services: all readiness conditions but one can hold without them."""

_READY_SECONDS = 120.0
_STOP_SECONDS = 30.0
_POLL_SECONDS = 0.1
_LOG_LINES = 25

A_BUILD = {
    "apiVersion": "shashin.dev/v1alpha1",
    "kind": "IndexBuild",
    "metadata": {"name": "demo"},
    "spec": {
        "model": "demo-v1",
        "dimensions": 128,
        "tier": "daily",
        "window": {"start": "2026-11-26T00:00:00Z", "end": "2026-11-27T00:00:00Z"},
        "source": {"shards": ["demo-v1.hourly.p0000.0-5"]},
    },
}
"""Of a shard that is not there."""

IMPORT_ALL = """
import importlib, json, os, sys
from importlib.metadata import PackageNotFoundError, version
for name in json.loads(sys.argv[1]):
    try:
        importlib.import_module(name)
    except Exception as error:
        sys.exit(f"importing {name}: {error}")
if "shashin.shards.kinds.registry" in sys.modules:
    # A manifest may name any kind, whose module is then imported.
    from shashin.shards.kinds.names import kind_names
    from shashin.shards.kinds.registry import index_kind
    for name in kind_names():
        index_kind(name)
# An emulator needs no credentials; no request is sent.
os.environ["STORAGE_EMULATOR_HOST"] = "http://127.0.0.1:9"
for distribution, uri in (("google-cloud-storage", "gs://b/folder"), ("aioboto3", "s3://b/folder")):
    try:
        version(distribution)
    except PackageNotFoundError:
        continue
    from shashin.objectstore.open import open_object_store
    open_object_store(uri)
"""
"""Imports the modules in argv, and those that are imported by name or lazily."""


class Failed(Exception):
    """A service does not work with the contents of its container; with the end of its log."""


def services() -> list[str]:
    """Return the name of every service's package."""
    return sorted(path.parent.name for path in (ROOT / "services").glob("*/__main__.py"))


def reached_modules(service: str) -> list[str]:
    """Return the service's modules, and those of ``shashin`` that they import, also lazily."""
    # No cache: it takes a file that another commit replaced within a second for the old one.
    graph = grimp.build_graph(
        "shashin", "services", exclude_type_checking_imports=True, cache_dir=None
    )
    if service == BUILDS:
        steps = graph.find_upstream_modules("shashin.builds", as_package=True)
        own_and_theirs = {*graph.find_descendants("shashin.builds"), *steps}
        return sorted(
            name
            for name in own_and_theirs
            if not name.startswith(ELSEWHERE) or name == f"{ELSEWHERE}settings"
        )
    package = f"services.{service}"
    own = {package} | graph.find_descendants(package)
    return sorted(own | graph.find_upstream_modules(package, as_package=True))


def copy_code(service: str, folder: Path) -> None:
    """Copy the container's code: ``shashin`` as in its wheel, and the service's package."""
    pycache = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "shashin", folder / "shashin", ignore=pycache)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    for source, target in wheel["force-include"].items():
        if (ROOT / source).is_file():  # folders are code of other services
            (folder / target).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / source, folder / target)
    if service == BUILDS:
        return
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
    """Create an environment from the service's lock; returns the number of packages."""
    lock = LOCKS / f"{service.replace('_', '-')}.txt"
    if not lock.exists():
        raise Failed(f"{lock} is missing: add the service to locks/lock.py and run `make lock`")
    uv, python = (sys.executable, "-m", "uv"), str(environment / "bin" / "python")
    # The lock decides which build of torch is installed, not the choice made for the checkout.
    env = {name: value for name, value in os.environ.items() if name != "UV_TORCH_BACKEND"}
    run(
        "creating an environment",
        *uv,
        "venv",
        "--python",
        sys.executable,
        str(environment),
        env=env,
    )
    run(
        f"installing {lock.name}",
        *(*uv, "pip", "install", "--python", python),
        *("--require-hashes", "--no-deps", "-r", str(lock)),
        env=env,
    )
    run("checking the installed packages", *uv, "pip", "check", "--python", python, env=env)
    return len(list(environment.glob("lib/python*/site-packages/*.dist-info")))


class ServiceProcess:
    """A service running in its own environment."""

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
        """Wait until it is as ready as it can be alone; returns the condition it waits for, if any.

        Every probe has to return 200, and the gRPC port, if any, has to report SERVING. A service
        that cannot be ready alone has to be live, to answer, and to name one unmet condition.
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
        """Stop it with SIGTERM.

        Raises:
            Failed: if it does not exit, or with an exit code other than 0.
        """
        self._process.send_signal(signal.SIGTERM)
        try:
            code = self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            raise self._failed(f"still running {_STOP_SECONDS:.0f} s after SIGTERM") from None
        if code:
            raise self._failed(f"exited with code {code} on SIGTERM")

    def kill(self) -> None:
        """Kill it."""
        self._process.kill()
        self._process.wait()

    def _until(self, holds: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + _READY_SECONDS
        while not holds():
            if (code := self._process.poll()) is not None:
                raise self._failed(f"exited with code {code} during startup")
            if time.monotonic() > deadline:
                raise self._failed(
                    f"no response from {what} after {_READY_SECONDS:.0f} s; "
                    f"/readyz: {self._page('readyz')[1].strip() or 'nothing'}"
                )
            time.sleep(_POLL_SECONDS)

    def _page(self, path: str) -> tuple[int, str]:
        """Return status and text of a page on its HTTP port; status 0 if there is no response."""
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
        # A router is serving once it is ready.
        return self._name in NOT_READY_ALONE or bool(
            answer.status == health_pb2.HealthCheckResponse.SERVING
        )

    def _failed(self, what: str) -> Failed:
        return Failed(f"{what}; the end of its log:\n{quoted(self._log.read_text())}")


def bare_environment(home: Path, settings: Mapping[str, str]) -> dict[str, str]:
    """Return environment variables that hide the checkout and the user's installation."""
    return {"PATH": os.defpath, "HOME": str(home), "OMP_NUM_THREADS": "1", **settings}


class _EmptyCluster(BaseHTTPRequestHandler):
    """Answers as the API server of a Kubernetes without objects, as far as a start needs it."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer a list with nothing, a watch with no event, and any other request with 404."""
        path, _, query = self.path.partition("?")
        if "watch=true" in query:
            # The client ends it.
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.rfile.read(1)
        elif "limit=" in query:
            self._answer(200, {"metadata": {"resourceVersion": "1"}, "items": []})
        else:
            self._answer(404, {"kind": "Status", "code": 404, "message": f"no {path}"})

    def do_POST(self) -> None:
        """Accept an object."""
        made = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        made["metadata"] |= {"resourceVersion": "1", "uid": "1"}
        self._answer(201, made)

    do_PUT = do_POST  # noqa: N815 - named by http.server

    def log_message(self, *_: object) -> None:
        """Print nothing."""

    def _answer(self, status: int, answer: object) -> None:
        data = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@contextmanager
def empty_cluster(kubeconfig: Path) -> Iterator[None]:
    """Run an API server with nothing in it, and write a kubeconfig for it."""
    server = ThreadingHTTPServer((HOST, 0), _EmptyCluster)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    name = "empty"
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": {"server": f"http://{HOST}:{server.server_port}"}}],
        "users": [{"name": name, "user": {}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        "current-context": name,
    }
    kubeconfig.write_text(json.dumps(config))  # YAML, too
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()


def settings_for(kafka: str, folder: Path) -> dict[str, str]:
    """Return settings for any service; each reads those that it knows."""
    return {
        "KUBECONFIG": str(folder.parent / KUBECONFIG),
        "SHASHIN_KAFKA": kafka,
        "SHASHIN_HTTP_PORT": str(free_port()),
        "SHASHIN_GRPC_PORT": str(free_port()),
        "SHASHIN_REPOSITORY": (folder / "repository").as_uri(),
        "SHASHIN_WORK_FOLDER": str(folder / "work"),
        "SHASHIN_DISCOVERY": (folder / "discovery.json").as_uri(),
        "SHASHIN_ROUTER": f"{HOST}:{free_port()}",
        "SHASHIN_PHOTOS": (folder / "photos").as_uri(),
    }


def check_service(service: str, kafka: str, folder: Path) -> str:
    """Install, import, start and stop a service in ``folder``; returns a summary.

    Raises:
        Failed: if any step fails.
    """
    watch = Stopwatch()
    environment, code = folder / "environment", folder / "code"
    python = environment / "bin" / "python"
    steps = [f"{install(service, environment)} packages in {watch.lap()}"]
    copy_code(service, code)
    modules = reached_modules(service)
    run(
        "importing all reachable modules",
        *(str(python), "-c", IMPORT_ALL, json.dumps(modules)),
        cwd=code,
        env=bare_environment(code, {}),
    )
    steps.append(f"{len(modules)} modules in {watch.lap()}")
    if service == BUILDS:
        check_builds(python, code, settings_for(kafka, folder))
        return ", ".join([*steps, f"planned, and ran a step, in {watch.lap()}"])
    process = ServiceProcess(service, python, code, settings_for(kafka, folder))
    try:
        waits_for = process.until_ready()
        what = (
            f"serving, waiting for other services ({waits_for}), after" if waits_for else "ready in"
        )
        steps.append(f"{what} {watch.lap()}")
        process.stop()
        steps.append(f"stopped in {watch.lap()}")
    finally:
        process.kill()
    return ", ".join(steps)


def check_builds(python: Path, code: Path, settings: Mapping[str, str]) -> None:
    """Plan builds, as files and as objects, and run a step of one.

    Raises:
        Failed: if one of them does not work.
    """
    environment = bare_environment(code, settings)
    command = (str(python), "-P", "-m", "shashin.cli", "builds", "plan")
    environment |= {"PYTHONPATH": str(code), "SHASHIN_STATE": str(code / "state")}
    run("planning", *command, "--renew-snapshots", cwd=code, env=environment)
    run("planning on Kubernetes", *command, "--builds", "kubernetes:///", cwd=code, env=environment)
    document, out = code / "build.json", code / "out"
    out.mkdir()
    document.write_text(json.dumps(A_BUILD))
    step = (str(python), "-P", "-m", "shashin.builds.step", "select")
    variables = {
        "SHASHIN_BUILD": str(document),
        "SHASHIN_BUILD_WORK": str(code / "work"),
        "SHASHIN_STEP_OUT": str(out),
    }
    ended = subprocess.run(
        step, check=False, text=True, capture_output=True, cwd=code, env=environment | variables
    )
    if "select: the repository has no shard" not in ended.stderr:
        raise Failed(f"the step select did not look for its shards\n{quoted(ended.stderr)}")


class Stopwatch:
    """Measures the duration of consecutive steps."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def lap(self) -> str:
        """Return the time since the last lap."""
        before, self._last = self._last, time.monotonic()
        return f"{self._last - before:.1f} s"


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Create a folder next to .venv, on the same file system, so that uv can hard-link its cache."""
    build = ROOT / "build"
    build.mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="locks-test-", dir=build))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def running_kafka(folder: Path) -> Iterator[str]:
    """Run a Kafka with all topics; yields its address."""
    watch = Stopwatch()
    kafka = EmbeddedKafka(folder, port=free_port())
    asyncio.run(kafka.start())
    try:
        asyncio.run(ensure_topics(kafka.bootstrap, partitions=2))
        tell(f"kafka is ready at {kafka.bootstrap} after {watch.lap()}")
        yield kafka.bootstrap
    finally:
        asyncio.run(kafka.stop())


def tell(text: str) -> None:
    """Print a line without buffering."""
    print(f"locks-test: {text}", flush=True)


def selected_services(names: Sequence[str]) -> list[str]:
    """Return the services with these names; all of them if none are given."""
    known = [*services(), BUILDS]
    selected = [name.replace("-", "_") for name in names] or known
    if unknown := set(selected) - set(known):
        sys.exit(f"locks-test: unknown service {', '.join(unknown)}: expected {known}")
    return selected


def main() -> None:
    """Test the services; exits with 1 if one does not work."""
    parser = argparse.ArgumentParser(prog="make locks-test")
    parser.add_argument("services", nargs="*", help="services to test; all by default")
    selected = selected_services(parser.parse_args().services)
    failed = 0
    whole = Stopwatch()
    with (
        scratch_folder() as scratch,
        running_kafka(scratch / "kafka") as kafka,
        empty_cluster(scratch / KUBECONFIG),
    ):
        for service in selected:
            folder = scratch / service
            try:
                tell(f"{service:<13}  ok  {check_service(service, kafka, folder)}")
            except Failed as failure:
                failed += 1
                tell(f"{service:<13}  FAILED  {failure}")
            shutil.rmtree(folder, ignore_errors=True)
    tell(f"{len(selected) - failed} passed, {failed} failed in {whole.lap()}")
    if failed:
        sys.exit(1)


if __name__ == "__main__":
    main()
