"""``shashin indexes snapshot``: renews snapshots of hidden rows, as ``shashin builds plan`` does in passing."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated

import typer

from shashin.cli.options import (
    DEFAULT_STATE,
    JsonOption,
    KafkaOption,
    RepositoryOption,
    StateOption,
)
from shashin.errors import UserError
from shashin.kafka.log_reader import LogReader
from shashin.kafka.lost_records import OnLostRecords
from shashin.kafka.topics import LISTINGS_HIDDEN
from shashin.local.system import System
from shashin.objectstore.open import opened_object_store
from shashin.objectstore.protocol import ObjectStore
from shashin.repository.hidden_snapshots import HiddenSnapshots
from shashin.repository.known_shards import known_models, served_shards
from shashin.repository.repository import ModelRepository, StoredShard
from shashin.repository.snapshot_ages import newest_snapshot_at
from shashin.serving.snapshot_renewal import Renewed, SnapshotRenewal
from shashin.terminal.console import Stages, echo, echo_json
from shashin.terminal.run import run

OlderThanOption = Annotated[
    float,
    typer.Option(
        "--older-than", min=0, metavar="DAYS", help="Only snapshots that are older than that."
    ),
]


def register(app: typer.Typer) -> None:
    """Add the command to ``shashin indexes``."""
    epilog = (
        "Example:  shashin indexes snapshot --repository gs://bucket/shashin --kafka kafka:9092"
    )
    app.command("snapshot", epilog=epilog)(snapshot)


def snapshot(
    older_than: OlderThanOption = 0.0,
    repository: RepositoryOption = None,
    kafka: KafkaOption = None,
    state: StateOption = DEFAULT_STATE,
    on_lost_records: Annotated[
        str,
        typer.Option(
            "--on-lost-records",
            envvar="SHASHIN_ON_LOST_RECORDS",
            metavar="stop|continue",
            help="What to do with a shard when listings.hidden no longer has what was hidden after its "
            "snapshot: refuse it, or write what is known (sold listings may then be found).",
        ),
    ] = "stop",
    as_json: JsonOption = False,
) -> None:
    """Renew the snapshots of hidden rows of all served shards; exits with 1 if one is refused or a record is unreadable.

    Index servers and indexers then read only what was hidden since. `shashin builds plan --run` does it
    once a week; it has to be done at least once within the retention of listings.hidden.
    """
    if on_lost_records not in {"stop", "continue"}:
        raise UserError(f"--on-lost-records {on_lost_records!r}: expected stop or continue")
    system = System(state)
    renewed = run(
        renew_snapshots(
            repository or system.repository,
            lambda: kafka or system.kafka_address(),
            older_than_days=older_than,
            on_lost_records="continue" if on_lost_records == "continue" else "stop",
        )
    )
    if as_json:
        echo_json(
            {
                "hidden_rows": renewed.hidden_rows,
                "unchanged": renewed.unchanged,
                "unreadable": renewed.unreadable,
                "refused": {shard: error.message for shard, error in renewed.refused.items()},
            }
        )
    else:
        echo_renewed(renewed)
    if not renewed.whole:
        raise typer.Exit(1)


async def renew_snapshots(
    uri: str,
    kafka: Callable[[], str],
    *,
    older_than_days: float = 0.0,
    on_lost_records: OnLostRecords = "stop",
) -> Renewed:
    """Renew the snapshots of served shards of every model that are old enough, and show how far it is.

    ``kafka`` is asked for the bootstrap servers if there is anything to do.
    """
    async with opened_object_store(uri) as store:
        due = await old_snapshots(store, older_than_days)
        if not due:
            return Renewed()
        with (
            # What is logged is no part of the answer.
            redirect_stdout(sys.stderr),
            tempfile.TemporaryDirectory(prefix="shashin-snapshot-") as scratch,
            Stages() as stages,
        ):
            address = kafka()
            renewal = SnapshotRenewal(
                ModelRepository(store),
                HiddenSnapshots(store),
                lambda: LogReader(address, LISTINGS_HIDDEN, client_id="shashin"),
                Path(scratch),
                on_lost_records=on_lost_records,
            )
            return await renewal.renew(
                due, lambda done: stages.set("snapshots renewed", done, len(due))
            )


async def old_snapshots(store: ObjectStore, older_than_days: float) -> list[StoredShard]:
    """Return the served shards of every model whose newest snapshot is older."""
    repository = ModelRepository(store)
    made_before = time.time() - older_than_days * 86400
    return [
        stored
        for model_id in await known_models(store)
        for stored in await served_shards(repository, model_id)
        if await newest_snapshot_at(store, stored.manifest) < made_before
    ]


def echo_renewed(renewed: Renewed) -> None:
    """Print what a renewal did."""
    for problem in (*renewed.unreadable, *(e.message for e in renewed.refused.values())):
        echo(problem, style="red")
    echo(
        f"{len(renewed.hidden_rows)} snapshots written with {sum(renewed.hidden_rows.values()):,} "
        f"hidden rows, {len(renewed.unchanged)} up to date, {len(renewed.refused)} refused",
        style="green" if renewed.whole else "red",
    )
