"""Small container images whose process answers probes, or crashes."""

from __future__ import annotations

import os
import shutil
import subprocess
import textwrap
import uuid
from dataclasses import dataclass
from pathlib import Path

import pytest

REGISTRY_VARIABLE = "SHASHIN_TEST_REGISTRY"

BASE = os.environ.get("SHASHIN_TEST_BASE_IMAGE", "python:3.11-slim-bookworm")

_SERVER = """
import http.server, os, sys
if os.environ["CRASH"]:
    sys.exit("crashes by design")
class Probes(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(os.environ["VERSION"].encode())
    def log_message(self, *args):
        pass
http.server.ThreadingHTTPServer(("", 8080), Probes).serve_forever()
"""

_DOCKERFILE = f"""
FROM {BASE}
COPY server.py /server.py
ARG VERSION
ARG CRASH=""
ENV VERSION=$VERSION CRASH=$CRASH
USER 10001:10001
ENTRYPOINT ["python", "/server.py"]
"""


@dataclass(frozen=True)
class ProbeImages:
    """Images by digest: two that become ready, one that crashes, one that does not exist."""

    first: str
    second: str
    crashing: str
    missing: str


def made_probe_images(folder: Path) -> ProbeImages:
    """Build and push them, or skip the test if that is not possible here."""
    registry = os.environ.get(REGISTRY_VARIABLE)
    if not registry:
        pytest.skip(f"needs a registry that the cluster pulls from: set {REGISTRY_VARIABLE}")
    if shutil.which("docker") is None or _docker("info").returncode:
        pytest.skip("needs a Docker engine to build images with")
    (folder / "server.py").write_text(textwrap.dedent(_SERVER))
    (folder / "Dockerfile").write_text(_DOCKERFILE)
    repository = f"{registry}/shashin-test/probes"
    first = _built(folder, repository, "1")
    return ProbeImages(
        first=first,
        second=_built(folder, repository, "2"),
        crashing=_built(folder, repository, "3", crash="yes"),
        missing=f"{repository}@sha256:{'0' * 64}",
    )


def _built(folder: Path, repository: str, version: str, crash: str = "") -> str:
    # Another worker of the tests, with the same tag, would take it from this image before it is inspected.
    tag = f"{repository}:{version}-{uuid.uuid4().hex[:8]}"
    arguments = (f"--build-arg=VERSION={version}", f"--build-arg=CRASH={crash}")
    for command in (("build", "--quiet", *arguments, "--tag", tag, str(folder)), ("push", tag)):
        ended = _docker(*command)
        assert not ended.returncode, f"docker {' '.join(command)}: {ended.stderr}{ended.stdout}"
    digests = _docker("inspect", "--format", '{{join .RepoDigests "\\n"}}', tag).stdout.split()
    return next(one for one in digests if one.startswith(f"{repository}@"))


def _docker(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["docker", *arguments], capture_output=True, text=True, timeout=300, check=False
    )
