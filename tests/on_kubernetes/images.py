"""The container images of all services, by digest; as a command, build and push them beforehand."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from shashin.errors import UserError
from shashin.terminal.console import echo, echo_error
from tests.on_kubernetes.cluster import Cluster, run

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


def main() -> int:
    """Build and push all, so that no test shares the machine with that; returns the exit code."""
    try:
        images = asyncio.run(pushed_images(Cluster.from_environment().registry))
    except (UserError, AssertionError) as error:
        echo_error(str(error))
        return 1
    echo(f"{len(images)} images built and pushed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
