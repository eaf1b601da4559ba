"""Configuration of the embedded Kafka: one KRaft node that is both broker and controller."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from shashin.errors import SettingsError

NODE_ID = 1
_MIB = 1024**2
_SEGMENT_BYTES = 128 * _MIB
_DAY_MS = 24 * 3600 * 1000


def server_properties(
    *,
    data: Path,
    host: str,
    port: int,
    controller_port: int,
    max_record_bytes: int,
    more: Mapping[str, str] | None = None,
) -> str:
    """Return the broker's properties file; ``more`` replaces or adds settings."""
    settings = {
        "process.roles": "broker,controller",
        "node.id": NODE_ID,
        "controller.quorum.bootstrap.servers": f"{host}:{controller_port}",
        "controller.listener.names": "CONTROLLER",
        "listeners": f"PLAINTEXT://{host}:{port},CONTROLLER://{host}:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://{host}:{port},CONTROLLER://{host}:{controller_port}",
        "log.dirs": _escaped(str(data)),
        # One node has the only replica of Kafka's own topics; few partitions load fast.
        "offsets.topic.replication.factor": 1,
        "offsets.topic.num.partitions": 8,
        "transaction.state.log.replication.factor": 1,
        "transaction.state.log.min.isr": 1,
        "transaction.state.log.num.partitions": 4,
        "share.coordinator.state.topic.replication.factor": 1,
        "share.coordinator.state.topic.min.isr": 1,
        "share.coordinator.state.topic.num.partitions": 1,
        # Topics need specific settings, so a misspelt name must not create one.
        "auto.create.topics.enable": "false",
        "num.partitions": 4,
        "default.replication.factor": 1,
        "min.insync.replicas": 1,
        "message.max.bytes": max_record_bytes,
        "replica.fetch.max.bytes": max_record_bytes,
        "log.retention.ms": 400 * _DAY_MS,
        "log.segment.bytes": _SEGMENT_BYTES,
        # Do not delay a group's first rebalance to wait for more members.
        "group.initial.rebalance.delay.ms": 0,
        "offsets.retention.minutes": 60 * 24 * 400,
        # A killed broker can rejoin only after its session has expired.
        "broker.session.timeout.ms": 6_000,
        # The default takes 128 MiB of heap for compaction alone.
        "log.cleaner.dedupe.buffer.size": 8 * _MIB,
        "num.network.threads": 2,
        "num.io.threads": 4,
        "background.threads": 2,
        "num.recovery.threads.per.data.dir": 2,
        **(more or {}),
    }
    return "".join(f"{name}={value}\n" for name, value in settings.items())


def _escaped(path: str) -> str:
    r"""Return a path as Java's properties format writes it: ASCII, anything else as ``\uXXXX``."""
    units = path.replace("\\", "\\\\").encode("utf-16-be")
    codes = (int.from_bytes(units[i : i + 2]) for i in range(0, len(units), 2))
    return "".join(chr(code) if 32 <= code < 127 else f"\\u{code:04x}" for code in codes)


def log4j_properties(log: Path) -> str:
    """Return the logging configuration: a file of at most 8 MiB, and one rotated file."""
    return f"""\
status = error
appender.file.type = RollingRandomAccessFile
appender.file.name = file
appender.file.fileName = {_escaped(str(log))}
appender.file.filePattern = {_escaped(str(log))}.%i
appender.file.layout.type = PatternLayout
appender.file.layout.pattern = %d{{ISO8601}} %p %m (%c{{1}})%n
appender.file.policies.type = Policies
appender.file.policies.size.type = SizeBasedTriggeringPolicy
appender.file.policies.size.size = 8 MB
appender.file.strategy.type = DefaultRolloverStrategy
appender.file.strategy.max = 1
rootLogger.level = info
rootLogger.appenderRef.file.ref = file
# Would log every configuration value of every client, twice.
logger.config.name = org.apache.kafka.common.config.AbstractConfig
logger.config.level = warn
logger.logconfig.name = org.apache.kafka.storage.internals.log.LogConfig
logger.logconfig.level = warn
"""


def java_options(*, heap_mb: int, log4j: Path, logs: Path) -> list[str]:
    """Return the JVM options: low memory and fast startup rather than throughput."""
    return [
        f"-Xmx{heap_mb}m",
        f"-Xms{min(32, heap_mb)}m",
        "-Xss512k",
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",
        "-XX:+UseCompactObjectHeaders",
        "-XX:MinHeapFreeRatio=15",
        "-XX:MaxHeapFreeRatio=30",
        "-XX:+ExitOnOutOfMemoryError",
        f"-XX:ErrorFile={logs / 'kafka-crash.log'}",
        "-Djava.awt.headless=true",
        f"-Dlog4j2.configurationFile={log4j.as_uri()}",
        f"-Dkafka.logs.dir={logs}",
        # Kafka and its codecs need both; without them the JVM warns on every start.
        "--sun-misc-unsafe-memory-access=allow",
        "--enable-native-access=ALL-UNNAMED",
    ]


def container_listeners(*, inside: str, outside: str, controller_port: int) -> dict[str, str]:
    """Return the listeners of a broker in a container.

    Other containers reach it as ``inside``, the machine around it as ``outside``, both HOST:PORT.
    """
    ports = inside.rpartition(":")[2], outside.rpartition(":")[2]
    if ports[0] == ports[1]:
        raise SettingsError(
            f"kafka has the port {ports[0]} for other containers and for the machine around it: "
            "give the latter another one"
        )
    controller = f"CONTROLLER://127.0.0.1:{controller_port}"
    return {
        "listeners": f"PLAINTEXT://0.0.0.0:{ports[0]},OUTSIDE://0.0.0.0:{ports[1]},{controller}",
        "advertised.listeners": f"PLAINTEXT://{inside},OUTSIDE://{outside},{controller}",
        "listener.security.protocol.map": (
            "PLAINTEXT:PLAINTEXT,OUTSIDE:PLAINTEXT,CONTROLLER:PLAINTEXT"
        ),
        "inter.broker.listener.name": "PLAINTEXT",
        "controller.quorum.bootstrap.servers": f"127.0.0.1:{controller_port}",
    }


def console_log4j_properties() -> str:
    """Return a logging configuration that writes warnings to the console."""
    return """\
status = error
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d{ISO8601} %p %m (%c{1})%n
rootLogger.level = warn
rootLogger.appenderRef.console.ref = console
"""
