"""``shashin demo``: the whole loop on one machine, with figures and a balance at the end."""

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
from shashin.cli.options import DEFAULT_STATE, BucketSecondsOption, QueriesOption, StateOption
from shashin.errors import UserError
from shashin.local.system import System
from shashin.rendering import require_rendering
from shashin.terminal.console import command, complain, near, say, tell
from shashin.terminal.run import run
from shashin.workload.listings import own_listings

FOLDER = "demo"
MARKER = "a-demo-may-delete-this-folder"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog="Example:  shashin demo --listings 200 --json figures.json")(demo)


def demo(
    *,
    listings: Annotated[int, typer.Option(help="Listings, each with 3 photos.", min=1)] = 2000,
    photos: Annotated[
        Path | None,
        typer.Option(
            help="Use your own photos: a folder whose subfolders are listings, or a CSV file.",
            exists=True,
        ),
    ] = None,
    rate: Annotated[float, typer.Option(help="Photos a second.", min=1, max=10_000)] = 60.0,
    bucket_seconds: BucketSecondsOption = 20,
    sold: Annotated[
        float, typer.Option(help="Share that is sold on the way.", min=0, max=1)
    ] = 0.05,
    updated: Annotated[float, typer.Option(help="Share that is updated.", min=0, max=1)] = 0.01,
    queries: QueriesOption = 300,
    bad: Annotated[int, typer.Option(help="Broken events and photos to mix in.", min=0)] = 9,
    seed: Annotated[int, typer.Option(help="Decides products, sales and samples.")] = 1,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the figures to this file.", dir_okay=False)
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave everything running.")] = False,
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Show the whole loop: events in, photos found, shards sealed and served; about four minutes.

    It runs in a folder of its own (demo, in the state folder), beside what `shashin up` runs.
    """
    if sold + updated > 1:
        raise UserError(f"--sold {sold} and --updated {updated} are more than all listings")
    if photos is None:
        require_rendering(instead=", or show your own photos with --photos")
    options = DemoOptions(listings, rate, bucket_seconds, sold, updated, queries, bad, seed)
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
            tell(f"figures written to {json_file}")
    finally:
        if ran:
            _leave(system, keep=keep and finished, whole=finished and not figures.problems)
    if figures.problems:
        complain(f"the demo found {len(figures.problems)} problems: {figures.problems[0]}")
        raise typer.Exit(1)


async def _fresh(system: System) -> None:
    """Stop and delete what an earlier demo left."""
    if not system.folder.exists():
        return
    if not (system.folder / MARKER).exists() and any(system.folder.iterdir()):
        raise UserError(
            f"{system.folder} is not a demo's folder, and the demo would delete it: "
            "choose another --state"
        )
    await system.stop()
    await asyncio.to_thread(shutil.rmtree, system.folder)


def _leave(system: System, *, keep: bool, whole: bool) -> None:
    if keep:
        shashin, state = command(), f"--state {near(system.folder)}"
        photo = next(iter(sorted(system.photos.glob("*/unseen.jpg"))), None)
        say()
        say("everything is still running; go on with:", style="bold")
        say(f"  {shashin} status {state}")
        say(f"  {shashin} search {near(photo) if photo else 'PHOTO'} --open {state}")
        say(f"  {shashin} publish FOLDER {state}")
        say(f"  {shashin} indexes ls {state}")
        say(f"  {shashin} dlq ls {state}")
        say(f"  {shashin} down {state}")
        return
    tell("stopping every process")
    run(system.stop())
    if whole:
        shutil.rmtree(system.folder, ignore_errors=True)
    else:
        tell(f"logs are kept in {system.logs} until the next demo")
