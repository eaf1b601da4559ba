"""Options that several commands share, with their defaults."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from shashin.local.system import DEFAULT_STATE

__all__ = ["DEFAULT_STATE", "JsonOption", "KafkaOption", "RouterOption", "StateOption"]

StateOption = Annotated[
    Path,
    typer.Option(
        "--state",
        envvar="SHASHIN_STATE",
        help="Folder that holds everything: Kafka's log, photos, shards, process logs.",
        show_default=True,
        file_okay=False,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for a script to read.")]
RouterOption = Annotated[
    str | None,
    typer.Option(
        "--router",
        envvar="SHASHIN_ROUTER",
        metavar="HOST:PORT",
        help="Ask this router instead of the one in the state folder.",
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
