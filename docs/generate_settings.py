"""Generates ``docs/settings.md`` from the settings classes; ``--check`` only checks whether it is stale."""

from __future__ import annotations

import importlib
import sys
import typing
from pathlib import Path
from types import UnionType

from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from shashin.runtime.settings import ServiceSettings

PAGE = Path(__file__).with_name("settings.md")
SERVICES = {
    "downloader": "services.downloader.settings.DownloaderSettings",
    "embedder": "services.embedder.settings.EmbedderSettings",
    "indexer": "services.indexer.settings.IndexerSettings",
    "index server": "services.index_server.settings.IndexServerSettings",
    "image builder": "services.image_builder.settings.ImageBuilderSettings",
    "router": "services.router.settings.RouterSettings",
    "controller": "services.controller.settings.ControllerSettings",
    "canary": "services.canary.settings.CanarySettings",
    "shop": "shashin.workload.shop_settings.ShopSettings",
}
HEAD = """# Settings

Every service reads environment variables that start with `SHASHIN_`. If a value is missing or
invalid, the service names the variable and exits with code 2. This page is generated from the
settings classes (`make docs`).
"""


TAIL = """
## The command

`shashin up` passes its environment on to every service, and says which settings it found there.
`SHASHIN_PHOTO_ROOTS` is added to the folder of published photos, and `SHASHIN_THUMBNAILS` takes the place of
the folder `thumbnails` in the state folder. Ports, hosts, discovery, tiers, work
folders, model id and dimensions are decided by `shashin up`: it names those that it does not use.
While it is running, `shashin up` with other settings is refused. The command itself reads:

| variable | same as | meaning |
|---|---|---|
| `SHASHIN_STATE` | `--state` | State folder; `.shashin` by default. |
| `SHASHIN_ROUTER` | `--router` | Router to use instead of the one in the state folder: HOST:PORT, `dns:///NAME:PORT`, or `grpcs://HOST:PORT` for TLS. |
| `SHASHIN_ROUTER_CA_FILE` | `--router-ca` | Authorities of routers with TLS, in PEM; those of the system by default. |
| `SHASHIN_ROUTER_CERTIFICATE_FILE`, `SHASHIN_ROUTER_KEY_FILE` | `--router-certificate`, `--router-key` | Own certificate chain and private key in PEM, for routers that ask for one. |
| `SHASHIN_API_KEY`, `SHASHIN_API_KEY_FILE` | `--api-key-file` | API key that is sent to the router, or the file that has it. |
| `SHASHIN_ACCEPTED_KEYS_FILE` | `--file` | File of accepted API keys that `shashin keys` edits. |
| `SHASHIN_KAFKA` | `--kafka` | Kafka to use instead of the embedded one. |
| `SHASHIN_REPOSITORY` | `--repository` | Model repository to use instead of the one in the state folder. |
| `SHASHIN_MODEL` | `--model` | Embedding model of `shashin up`, and of re-index builds. |
| `SHASHIN_EMBEDDER` | | HOST:PORT of embedders that embed the photos of re-index builds, instead of the model in the step's own process. |
| `SHASHIN_BUILDS` | `--builds` | Namespace whose IndexBuilds `shashin builds` plans, lists and retries, instead of the builds of the state folder. |
| `SHASHIN_MODEL_ID` | `--model-id` | Model whose builds `shashin builds plan` plans; all by default. |
| `SHASHIN_BUCKET_SECONDS` | `--bucket-seconds` | Bucket length of `shashin up` and `demo`. |
| `SHASHIN_GRACE_SECONDS` | `--grace-seconds` | Grace of `shashin up`. |
| `SHASHIN_CACHE_FOLDER` | `--folder` | Cache of originals for `shashin cache`. |
| `SHASHIN_CACHE_BYTES` | `--max-bytes` | Size to which `shashin cache prune` reduces it. |
| `SHASHIN_CACHE_SECONDS` | `--seconds` | Age beyond which `shashin cache prune` removes from it. |
| `SHASHIN_THUMBNAILS` | `--thumbnails` | Store that `shashin thumbnails fill` fills, instead of the one in the state folder. |
| `SHASHIN_MAX_BYTES` | | Size up to which `shashin publish` sends a photo; that of the downloader. |
| `SHASHIN_CACHE` | | Folder for Kafka's jars; the user's cache by default. |

Your own model has an id (`shashin model train --model-id`) that must be the same for all services:
the embedder needs the model itself (`SHASHIN_MODEL`), the others its id and dimensions
(`SHASHIN_MODEL_ID`, `SHASHIN_DIMENSIONS`). The id of `torchvision:resnet50` is
`torchvision-resnet50`. `shashin up --model` sets all of these.
"""


def type_name(annotation: object) -> str:
    """Return a field's type in words."""
    if typing.get_origin(annotation) is typing.Literal:
        return " or ".join(f"`{choice}`" for choice in typing.get_args(annotation))
    if isinstance(annotation, UnionType) or typing.get_origin(annotation) is typing.Union:
        parts = [part for part in typing.get_args(annotation) if part is not type(None)]
        return " or ".join(type_name(part) for part in parts)
    names = {
        SecretStr: "text",
        str: "text",
        int: "integer",
        float: "number",
        bool: "true or false",
        Path: "path",
    }
    if isinstance(annotation, type) and annotation in names:
        return names[annotation]
    raise TypeError(f"no name for the type {annotation!r}: add one here")


def row(name: str, field: FieldInfo) -> str:
    """Return a field's table row."""
    default = "**required**" if field.default is PydanticUndefined else f"`{field.default}`"
    if field.default_factory is not None:
        default = "computed"
    if field.default in {"", None}:
        default = "none"
    if not field.description:
        raise ValueError(f"the setting {name} has no description")
    return f"| `SHASHIN_{name.upper()}` | {type_name(field.annotation)} | {default} | {field.description} |"


def table(fields: dict[str, FieldInfo]) -> str:
    """Return a table of settings."""
    lines = ["| variable | type | default | meaning |", "|---|---|---|---|"]
    return "\n".join([*lines, *(row(name, field) for name, field in fields.items())])


def page() -> str:
    """Return the whole page."""
    common = ServiceSettings.model_fields
    parts = [HEAD, "## Every service\n", table(common)]
    for title, path in SERVICES.items():
        module, _, name = path.rpartition(".")
        own = getattr(importlib.import_module(module), name).model_fields
        parts += [f"\n## {title.capitalize()}\n"]
        parts += [table({key: field for key, field in own.items() if key not in common})]
    return "\n".join([*parts, TAIL])


def main() -> None:
    """Write the page, or check it."""
    text = page()
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(text, encoding="utf-8")
    elif not PAGE.exists() or PAGE.read_text(encoding="utf-8") != text:
        sys.exit(f"{PAGE.name} is stale; run `make docs`")


if __name__ == "__main__":
    main()
