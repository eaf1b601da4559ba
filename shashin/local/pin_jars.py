"""Pin another Kafka version: ``python -m shashin.local.pin_jars VERSION`` rewrites the pin file."""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from jgo.constants import MAVEN_CENTRAL_URL
from jgo.maven import Artifact, MavenContext
from jgo.parse import Coordinate

from shashin.local.jars import PIN_FILE, Jar, sha256_of

_LOG_GROUP = "org.apache.logging.log4j"


def class_path_of(context: MavenContext, version: str) -> list[Artifact]:
    """Return the class path of that Kafka version, including its logging backend."""
    root = context.create_dependency(
        Coordinate("org.apache.kafka", "kafka_2.13", version=version, scope="compile")
    )
    roots, transitive = context.resolver.resolve([root])
    artifacts = [
        dependency.artifact
        for dependency in [*roots, *transitive]
        if dependency.scope in {"compile", "runtime"}
    ]
    # Kafka's POM does not include the SLF4J bridge. It is added separately, because resolving it
    # together with Kafka would let its parent POM override the versions of Kafka's dependencies.
    core = next(a for a in artifacts if (a.groupId, a.artifactId) == (_LOG_GROUP, "log4j-core"))
    bridge = context.project(_LOG_GROUP, "log4j-slf4j-impl").at_version(core.version)
    return [*artifacts, bridge.artifact()]


def pin(version: str, path: Path = PIN_FILE) -> int:
    """Write the jars of a Kafka version with their hashes; returns their number."""
    with tempfile.TemporaryDirectory() as folder:
        context = MavenContext(
            repo_cache=Path(folder), local_repos=[], remote_repos={"central": MAVEN_CENTRAL_URL}
        )
        jars = []
        for artifact in class_path_of(context, version):
            file = artifact.resolve()
            jars.append(
                Jar(
                    artifact.groupId,
                    artifact.artifactId,
                    artifact.version,
                    sha256_of(file),
                    file.stat().st_size,
                )
            )
    document = {"kafka": version, "jars": [asdict(jar) for jar in sorted(jars)]}
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return len(jars)


if __name__ == "__main__":
    sys.stdout.write(f"{pin(sys.argv[1])} jars pinned\n")
