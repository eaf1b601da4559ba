"""The container images of all services, by digest."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
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


async def pushed_images(registry: str, services: Sequence[str] = SERVICES) -> Mapping[str, str]:
    """Build images and push them; returns REPOSITORY@DIGEST by service."""
    tag = "test"
    await run(
        "make",
        *("--no-print-directory", "-C", str(ROOT), "images"),
        *(f"REGISTRY={registry}/shashin", f"TAG={tag}", f"SERVICES={' '.join(services)}"),
    )
    return dict(
        zip(
            services,
            await asyncio.gather(
                *(_pushed(f"{registry}/shashin/{name}", tag) for name in services)
            ),
            strict=True,
        )
    )


async def _pushed(repository: str, tag: str) -> str:
    """Push an image; returns it by its digest."""
    await run("docker", "push", "--quiet", f"{repository}:{tag}")
    digests = await run(
        "docker", "inspect", "--format", '{{join .RepoDigests "\\n"}}', f"{repository}:{tag}"
    )
    return next(one for one in digests.split() if one.startswith(f"{repository}@"))
