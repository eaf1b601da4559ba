"""Writes ``docs/settings.md`` from the settings classes; ``--check`` only says whether it is stale."""

from __future__ import annotations

import importlib
import sys
import typing
from pathlib import Path
from types import UnionType

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
}
HEAD = """# Settings

Every service reads environment variables that begin with `SHASHIN_`. A value that is missing or
wrong stops the start with the variable's name and exit code 2. This page is generated from the
settings classes (`make docs`).
"""


TAIL = """
## The command

`shashin` gives each service what it needs to run on one machine, and everything else that stands in
its own environment. For itself it reads:

| variable | same as | meaning |
|---|---|---|
| `SHASHIN_STATE` | `--state` | Folder that holds everything; `.shashin`. |
| `SHASHIN_ROUTER` | `--router` | Router to ask instead of the one in the state folder. |
| `SHASHIN_KAFKA` | `--kafka` | Kafka to use instead of the embedded one. |
| `SHASHIN_REPOSITORY` | `--repository` | Model repository to use instead of the one in the state folder. |
| `SHASHIN_CACHE` | | Folder for Kafka's jars; the user's cache unless set. |

A model of your own has a name (`shashin model train --model-id`) that all services have to agree on:
the embedder is told the model (`SHASHIN_MODEL`), the others its name and the length of its vectors
(`SHASHIN_MODEL_ID`, `SHASHIN_DIMENSIONS`). `torchvision:resnet50` is named `torchvision-resnet50`.
`shashin up --model` does all of that.
"""


def type_name(annotation: object) -> str:
    """Return a field's type as a person reads it."""
    if typing.get_origin(annotation) is typing.Literal:
        return " or ".join(f"`{choice}`" for choice in typing.get_args(annotation))
    if isinstance(annotation, UnionType) or typing.get_origin(annotation) is typing.Union:
        parts = [part for part in typing.get_args(annotation) if part is not type(None)]
        return " or ".join(type_name(part) for part in parts)
    names = {str: "text", int: "whole number", float: "number", bool: "true or false", Path: "path"}
    if isinstance(annotation, type) and annotation in names:
        return names[annotation]
    raise TypeError(f"no name for the type {annotation!r}: add one here")


def row(name: str, field: FieldInfo) -> str:
    """Return a field's line of the table."""
    default = "**required**" if field.default is PydanticUndefined else f"`{field.default}`"
    if field.default_factory is not None:
        default = "computed"
    if field.default in {"", None}:
        default = "none"
    if not field.description:
        raise ValueError(f"the setting {name} has no description")
    return f"| `SHASHIN_{name.upper()}` | {type_name(field.annotation)} | {default} | {field.description} |"


def table(fields: dict[str, FieldInfo]) -> str:
    """Return the table of some settings."""
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
    """Write, or check."""
    text = page()
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(text, encoding="utf-8")
    elif not PAGE.exists() or PAGE.read_text(encoding="utf-8") != text:
        sys.exit(f"{PAGE.name} is stale; run `make docs`")


if __name__ == "__main__":
    main()
