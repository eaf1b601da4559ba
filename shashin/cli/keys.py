"""``shashin keys``: the API keys that routers accept, in a file with nothing but their hashes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from shashin.access.api_key import StoredKey, new_key
from shashin.access.key_file import KeyFile
from shashin.cli.options import JsonOption
from shashin.terminal.console import echo, echo_json, echo_stderr, echo_table

_HASH_CHARACTERS = 8

app = typer.Typer(
    no_args_is_help=True,
    help="Add, list and revoke the API keys that routers accept (SHASHIN_ACCEPTED_KEYS_FILE).",
)

FileOption = Annotated[
    Path,
    typer.Option(
        "--file",
        envvar="SHASHIN_ACCEPTED_KEYS_FILE",
        help="File of the accepted keys; one for each environment.",
        dir_okay=False,
    ),
]


@app.command(epilog="Example:  shashin keys add app-backend --file keys.json --per-second 200")
def add(
    name: Annotated[str, typer.Argument(help="Who uses it; metrics have it as a label.")],
    *,
    file: FileOption,
    days: Annotated[
        int | None,
        typer.Option(
            "--expires-in-days", help="Days until it expires; never by default.", min=1, max=36500
        ),
    ] = None,
    per_second: Annotated[
        float | None, typer.Option(help="Maximum calls a second; no limit by default.", min=0.001)
    ] = None,
    burst: Annotated[
        float | None,
        typer.Option(
            help="Maximum calls at once after a pause; by default those of a second.", min=1
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Make a key and print it, this once: the file has only its hash."""
    now = datetime.now(UTC)
    expires = None if days is None else (now + timedelta(days=days)).replace(microsecond=0)
    key, stored = new_key(name, created=now, expires=expires, per_second=per_second, burst=burst)
    KeyFile(file).add(stored)
    if as_json:
        echo_json({"key": key, **_document(stored)})
        return
    echo(key)
    echo_stderr(
        f"added {stored.name} with the id {stored.id} to {file}: keep the key now, it is not shown again"
    )


@app.command("ls", epilog="Example:  shashin keys ls --file keys.json")
def list_keys(file: FileOption, as_json: JsonOption = False) -> None:
    """List the keys, without anything that could be used as one."""
    keys = KeyFile(file).read().keys
    if as_json:
        echo_json([_document(key) for key in keys])
        return
    echo_table(
        ["id", "name", "created", "expires", ">per second", ">burst", "hash", "state"],
        [
            (
                key.id,
                key.name,
                _day(key.created),
                _day(key.expires),
                "-" if key.per_second is None else f"{key.per_second:g}",
                "-" if key.burst is None else f"{key.burst:g}",
                f"{key.sha256[:_HASH_CHARACTERS]}…",
                _state(key),
            )
            for key in keys
        ],
    )


@app.command(epilog="Example:  shashin keys revoke 0123456789 --file keys.json")
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="Id of the key.")], *, file: FileOption
) -> None:
    """Refuse a key from now on: routers that have the file read it within seconds."""
    key = KeyFile(file).revoke(key_id, datetime.now(UTC))
    echo(f"{key.name} with the id {key.id} {key.problem(datetime.now(UTC))}")


@app.command(epilog="Example:  shashin keys prune --file keys.json")
def prune(file: FileOption) -> None:
    """Remove revoked and expired keys from the file; calls with them are then of unknown keys."""
    removed = KeyFile(file).prune(datetime.now(UTC))
    echo(f"removed {len(removed)}")
    for key in removed:
        echo(f"  {key.id} {key.name}")


def _day(time: datetime | None) -> str:
    return "-" if time is None else f"{time.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def _state(key: StoredKey) -> str:
    return key.problem(datetime.now(UTC)) or "valid"


def _document(key: StoredKey) -> dict[str, object]:
    return {**key.model_dump(mode="json", exclude={"sha256"}), "state": _state(key)}
