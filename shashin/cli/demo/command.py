"""``shashin demo``: the whole pipeline on one machine, with measurements and an event balance."""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from pathlib import Path
from typing import Annotated

import typer

from shashin.cli.demo.report import figures_document, print_figures
from shashin.cli.demo.run import DemoOptions, DemoRun
from shashin.cli.options import (
    DEFAULT_STATE,
    BucketSecondsOption,
    PhotosOption,
    QueriesOption,
    StateOption,
)
from shashin.errors import UserError
from shashin.local.system import DEFAULT_MODEL, System
from shashin.model.loading import LITE
from shashin.rendering import require_rendering
from shashin.terminal.console import command, echo, echo_error, echo_stderr, relative_path
from shashin.terminal.run import run
from shashin.workload.listings import own_listings

FOLDER = "demo"
MARKER = "a-demo-may-delete-this-folder"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog="Example:  shashin demo --listings 200 --json figures.json")(demo)


def demo(
    *,
    listings: Annotated[
        int, typer.Option(help="Number of listings, each with 3 photos.", min=1)
    ] = 2000,
    photos: PhotosOption = None,
    real: Annotated[
        bool, typer.Option("--real", help="Use the few real photos that ship with the demo.")
    ] = False,
    rate: Annotated[float, typer.Option(help="Photos per second.", min=1, max=10_000)] = 60.0,
    bucket_seconds: BucketSecondsOption = 20,
    sold: Annotated[
        float,
        typer.Option(help="Share of the listings that are sold during the run.", min=0, max=1),
    ] = 0.05,
    updated: Annotated[
        float,
        typer.Option(help="Share of the listings that are updated during the run.", min=0, max=1),
    ] = 0.01,
    queries: QueriesOption = 300,
    bad: Annotated[
        int, typer.Option(help="Number of invalid events and photos to mix in.", min=0)
    ] = 9,
    seed: Annotated[int, typer.Option(help="Seed for products, sales and samples.")] = 1,
    json_file: Annotated[
        Path | None,
        typer.Option("--json", help="Write the measurements to this file as JSON.", dir_okay=False),
    ] = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave everything running at the end.")
    ] = False,
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Run the whole pipeline: publish, search, seal and serve shards; takes about four minutes.

    It uses its own folder (demo, inside the state folder) and can run alongside `shashin up`.
    """
    if sold + updated > 1:
        raise UserError(f"--sold {sold} and --updated {updated} add up to more than 1")
    if real and photos is not None:
        raise UserError("--real and --photos are both given; expected one of them")
    if photos is None:
        require_rendering(instead=", or use your own photos with --photos")
    if real:
        photos = _real_photos()
    model = model_for(photos)
    if photos is not None:
        echo_stderr(f"real photos: using the model {model}")
    options = DemoOptions(listings, rate, bucket_seconds, sold, updated, queries, bad, seed, model)
    started = time.monotonic()
    system = System(state / FOLDER)
    ran = finished = False
    try:
        own = None if photos is None else own_listings(photos, at_most=listings)
        run(_fresh(system))
        system.folder.mkdir(parents=True)
        (system.folder / MARKER).touch()
        ran = True
        demo_run = DemoRun(options, own, system)
        figures = run(demo_run.play(started))
        finished = True
        print_figures(figures, demo_run.balance.line, demo_run.query_kind)
        if json_file is not None:
            document = json.dumps(figures_document(figures), indent=2)
            json_file.write_text(document + "\n", encoding="utf-8")
            echo_stderr(f"measurements written to {json_file}")
    finally:
        if ran:
            _leave(system, keep=keep and finished, succeeded=finished and not figures.problems)
    if figures.problems:
        echo_error(f"the demo found {len(figures.problems)} problems: {figures.problems[0]}")
        raise typer.Exit(1)


def model_for(photos: Path | None) -> str:
    """Return the model for photos of a folder, or for rendered ones."""
    return DEFAULT_MODEL if photos is None else LITE


def _real_photos() -> Path:
    from shashin_catalogue import real_photos_folder

    return real_photos_folder()


async def _fresh(system: System) -> None:
    """Stop and delete what an earlier demo left behind."""
    if not system.folder.exists():
        return
    if not (system.folder / MARKER).exists() and any(system.folder.iterdir()):
        raise UserError(
            f"{system.folder} was not created by the demo, which would delete it: "
            "choose another --state"
        )
    await system.stop()
    await asyncio.to_thread(shutil.rmtree, system.folder)


def _leave(system: System, *, keep: bool, succeeded: bool) -> None:
    if keep:
        state = ("--state", relative_path(system.folder))
        photo = next(iter(sorted(system.photos.glob("*/unseen.jpg"))), None)
        query = relative_path(photo) if photo else "PHOTO"
        echo()
        echo("everything is still running; next steps:", style="bold")
        echo(f"  open {system.page_url()}     (search by photo in a browser)")
        echo(f"  {command('status', *state)}")
        echo(f"  {command('search', query, '--open', *state)}")
        echo(f"  {command('publish', 'FOLDER', *state)}")
        echo(f"  {command('indexes', 'ls', *state)}")
        echo(f"  {command('dlq', 'ls', *state)}")
        echo(f"  {command('down', *state)}")
        return
    echo_stderr("stopping all processes")
    run(system.stop())
    if succeeded:
        shutil.rmtree(system.folder, ignore_errors=True)
    else:
        echo_stderr(f"logs are kept in {system.logs} until the next demo")
