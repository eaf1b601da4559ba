"""Options shared by several commands, with their defaults."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from shashin.builds.resource import FORM as BUILDS_FORM
from shashin.local.system import DEFAULT_STATE
from shashin.objectstore.open import known_forms

__all__ = [
    "DEFAULT_STATE",
    "BuildsOption",
    "JsonOption",
    "KafkaOption",
    "RouterOption",
    "StateOption",
]

StateOption = Annotated[
    Path,
    typer.Option(
        "--state",
        envvar="SHASHIN_STATE",
        help="State folder: Kafka data, photos, shards and logs.",
        show_default=True,
        file_okay=False,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
RouterOption = Annotated[
    str | None,
    typer.Option(
        "--router",
        envvar="SHASHIN_ROUTER",
        metavar="ADDRESS",
        help="Use this router instead of the one in the state folder: HOST:PORT, or grpcs://HOST:PORT for "
        "TLS.",
    ),
]
KafkaOption = Annotated[
    str | None,
    typer.Option(
        "--kafka",
        envvar="SHASHIN_KAFKA",
        metavar="HOST:PORT",
        help="Use this Kafka instead of the embedded one.",
    ),
]
RepositoryOption = Annotated[
    str | None,
    typer.Option(
        "--repository",
        envvar="SHASHIN_REPOSITORY",
        metavar="URI",
        help=f"Use this model repository instead of the one in the state folder: {known_forms()}.",
    ),
]
BuildsOption = Annotated[
    str | None,
    typer.Option(
        "--builds",
        envvar="SHASHIN_BUILDS",
        metavar="URI",
        help=f"The IndexBuilds of a namespace instead of the builds of the state folder: {BUILDS_FORM}.",
    ),
]
BucketSecondsOption = Annotated[
    int,
    typer.Option(
        "--bucket-seconds",
        envvar="SHASHIN_BUCKET_SECONDS",
        help="Bucket length in seconds: how often shards are sealed.",
        min=1,
    ),
]
NoWaitOption = Annotated[
    bool, typer.Option("--no-wait", help="Return as soon as Kafka has acknowledged the events.")
]
LimitOption = Annotated[
    int | None,
    typer.Option("--limit", min=1, metavar="N", help="Only the newest N matching entries."),
]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Show what would be done without changing anything.")
]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")]
WorkOption = Annotated[
    Path,
    typer.Option(
        "--work", help="Folder in which rendered photos are cached between runs.", file_okay=False
    ),
]
PhotosOption = Annotated[
    Path | None,
    typer.Option(
        "--photos",
        help="Use your own photos: a folder whose subfolders are listings, or a CSV file.",
        exists=True,
    ),
]
QueriesOption = Annotated[
    int, typer.Option("--queries", help="Number of unseen photos to search with.", min=1)
]
