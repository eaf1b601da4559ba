"""``shashin thumbnails``: the thumbnails that web pages show."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from shashin.cli.options import DEFAULT_STATE, JsonOption, KafkaOption, StateOption
from shashin.client.topic_tails import CLIENT_ID
from shashin.errors import UserError
from shashin.local.system import System
from shashin.objectstore.open import known_forms, opened_object_store
from shashin.terminal.console import Stages, echo, echo_json
from shashin.terminal.run import run
from shashin.thumbnails.fill import Filled
from shashin.thumbnails.fill import fill as fill_store
from shashin.thumbnails.store import ThumbnailStore

_READING, _WRITING = "offsets read", "thumbnails written"

app = typer.Typer(no_args_is_help=True, help="Fill the store of thumbnails for web pages.")

ThumbnailsOption = Annotated[
    str | None,
    typer.Option(
        "--thumbnails",
        envvar="SHASHIN_THUMBNAILS",
        metavar="URI",
        help=f"Use this store of thumbnails instead of the one in the state folder: {known_forms()}.",
    ),
]


@app.command(epilog="Example:  shashin thumbnails fill --thumbnails gs://BUCKET --kafka kafka:9092")
def fill(
    thumbnails: ThumbnailsOption = None,
    kafka: KafkaOption = None,
    state: StateOption = DEFAULT_STATE,
    as_json: JsonOption = False,
) -> None:
    """Write the thumbnails that are missing, of all photos that the topic images.downloaded still has.

    Services may run meanwhile. A repeat goes on where it was interrupted, and changes nothing at the end.
    """
    system = System(state)
    uri = thumbnails or system.thumbnails()
    if not uri:
        raise UserError(
            "no store of thumbnails is named: use --thumbnails, or set SHASHIN_THUMBNAILS"
        )
    with Stages() as stages:
        filled = run(_filled(uri, kafka or system.kafka_address(), stages))
    if as_json:
        echo_json({"thumbnails": uri, **asdict(filled)})
        return
    echo(
        f"{filled.written:,} thumbnails written to {uri}; {filled.existing:,} of {filled.photos:,} were there",
        style="green",
    )
    if filled.unreadable:
        echo(
            f"{filled.unreadable:,} records of images.downloaded cannot be read and were left out",
            style="yellow",
        )


async def _filled(uri: str, kafka: str, stages: Stages) -> Filled:
    def show(filled: Filled) -> None:
        stages.set(_READING, filled.offsets, filled.all_offsets)
        stages.set(_WRITING, filled.written, note=f"{filled.existing:,} were there")

    async with opened_object_store(uri) as objects:
        return await fill_store(
            kafka, ThumbnailStore(objects), client_id=CLIENT_ID, on_progress=show
        )
