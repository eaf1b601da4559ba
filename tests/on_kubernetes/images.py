"""The container images of all services, by digest."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tests.on_kubernetes.cluster import run

ROOT = Path(__file__).parents[2]

SERVICES = (
    "controller",
    "downloader",
    "image-builder",
    "index-server",
    "indexer",
    "router",
    "builds",
)


async def pushed_images(registry: str) -> Mapping[str, str]:
    """Build all images and push them; returns REPOSITORY@DIGEST by service."""
    tag = "test"
    await run(
        "make",
        *("--no-print-directory", "-C", str(ROOT), "images"),
        *(f"REGISTRY={registry}/shashin", f"TAG={tag}", f"SERVICES={' '.join(SERVICES)}"),
    )
    found = {}
    for service in SERVICES:
        repository = f"{registry}/shashin/{service}"
        await run("docker", "push", "--quiet", f"{repository}:{tag}")
        digests = await run(
            "docker", "inspect", "--format", '{{join .RepoDigests "\\n"}}', f"{repository}:{tag}"
        )
        found[service] = next(d for d in digests.split() if d.startswith(f"{repository}@"))
    return found
