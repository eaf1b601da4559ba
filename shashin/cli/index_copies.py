"""``shashin indexes export`` and ``import``: a model's backup in another object store, and its restore."""

from __future__ import annotations

import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from shashin.cli.options import DEFAULT_STATE, JsonOption, RepositoryOption, StateOption
from shashin.errors import UserError
from shashin.local.system import System
from shashin.objectstore.open import known_forms, opened_object_store
from shashin.repository.copying import Copied, ModelCopy, only_model
from shashin.terminal.console import Stages, echo, echo_json, megabytes
from shashin.terminal.run import run

ModelOption = Annotated[
    str | None,
    typer.Option("--model", metavar="ID", help="The model; needed if the source has several."),
]
AllOption = Annotated[
    bool,
    typer.Option(
        "--all",
        help="Also shards that are neither served nor new, such as those that builds have merged.",
    ),
]


def register(app: typer.Typer) -> None:
    """Add the commands to ``shashin indexes``."""
    app.command("export", epilog="Example:  shashin indexes export s3://backups/shashin")(export)
    app.command("import", epilog="Example:  shashin indexes import s3://backups/shashin")(import_)


def export(
    target: Annotated[
        str, typer.Argument(metavar="URI", help=f"Where to copy it: {known_forms()}.")
    ],
    repository: RepositoryOption = None,
    model: ModelOption = None,
    everything: AllOption = False,
    state: StateOption = DEFAULT_STATE,
    as_json: JsonOption = False,
) -> None:
    """Back up a model: copy its shards, horizons and pointers to another object store.

    Every file is verified by its hash in both stores. Run it again to continue an interrupted copy,
    or to bring a backup up to date: only what is missing or different is copied. Exits with 1, and
    leaves the target's pointers as they were, if anything cannot be verified.
    """
    source = repository or System(state).repository
    _copy(source, target, model, everything=everything, replace=True, as_json=as_json)


def import_(
    source: Annotated[
        str, typer.Argument(metavar="URI", help=f"Where the backup is: {known_forms()}.")
    ],
    repository: RepositoryOption = None,
    model: ModelOption = None,
    everything: AllOption = False,
    replace: Annotated[
        bool,
        typer.Option(
            "--replace",
            help="Overwrite pointers, horizons and manifests of this repository that differ.",
        ),
    ] = False,
    state: StateOption = DEFAULT_STATE,
    as_json: JsonOption = False,
) -> None:
    """Restore a model from a backup into this repository.

    Verifies and continues as `export` does. Pointers, horizons and manifests that are there already
    and differ are kept, and the command exits with 1, unless --replace is given.
    """
    target = repository or System(state).repository
    _copy(source, target, model, everything=everything, replace=replace, as_json=as_json)


def _copy(
    source: str, target: str, model: str | None, *, everything: bool, replace: bool, as_json: bool
) -> None:
    if source.rstrip("/") == target.rstrip("/"):
        raise UserError(f"{source} is both source and target of the copy: expected two stores")
    started = time.monotonic()
    model, copied = run(_copied(source, target, model, everything=everything, replace=replace))
    seconds = time.monotonic() - started
    if as_json:
        echo_json({"model_id": model, **asdict(copied), "seconds": round(seconds, 3)})
    else:
        for problem in copied.problems:
            echo(problem, style="red")
        echo(
            f"{model}: {copied.shards} shards verified in both stores, {copied.files} files "
            f"({megabytes(copied.copied_bytes)}) copied in {seconds:.1f} s"
        )
        if copied.problems:
            echo(
                f"{len(copied.problems)} problems: pointers and horizons are as they were",
                style="red",
            )
        else:
            echo(f"{len(copied.pointers)} pointers written or up to date", style="green")
    if copied.problems:
        raise typer.Exit(1)


async def _copied(
    source_uri: str, target_uri: str, model: str | None, *, everything: bool, replace: bool
) -> tuple[str, Copied]:
    started = time.monotonic()
    async with opened_object_store(source_uri) as source, opened_object_store(target_uri) as target:
        model = model or await only_model(source)
        with tempfile.TemporaryDirectory(prefix="shashin-copy-") as scratch, Stages() as stages:

            def show(copied: Copied) -> None:
                speed = copied.verified_bytes / max(time.monotonic() - started, 1e-3)
                stages.set(
                    "MB verified",
                    copied.verified_bytes / 1e6,
                    copied.total_bytes / 1e6,
                    note=f"{megabytes(speed)}/s",
                )

            copy = ModelCopy(source, target, model, Path(scratch), replace=replace, progress=show)
            return model, await copy.run(everything=everything)
