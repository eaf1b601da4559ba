"""``shashin cache``: what is in the cache of original photos, and removing from it."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from shashin.cli.options import JsonOption
from shashin.errors import DiskUnavailable, UserError
from shashin.originals import OriginalsCache
from shashin.originals.settings import CacheSettings
from shashin.terminal.console import echo, echo_json, echo_table, megabytes

app = typer.Typer(
    no_args_is_help=True, help="Show and prune the cache of original photos of the downloader."
)

FolderOption = Annotated[
    Path | None,
    typer.Option(
        "--folder",
        envvar="SHASHIN_CACHE_FOLDER",
        help="Folder of the cache.",
        file_okay=False,
    ),
]


@app.command(epilog="Example:  shashin cache stats --folder /srv/shashin-cache --json")
def stats(folder: FolderOption = None, as_json: JsonOption = False) -> None:
    """Count the originals in the cache."""
    cache = _cache(folder)
    try:
        found = cache.stats()
    except OSError as error:
        raise DiskUnavailable(
            f"{cache.folder} cannot be read: {(error.strerror or str(error)).lower()}"
        ) from error
    if as_json:
        echo_json({"folder": str(cache.folder), "bytes": found.bytes, **asdict(found)})
        return
    used = found.oldest_use
    oldest = "-" if used is None else f"{datetime.fromtimestamp(used, UTC):%Y-%m-%d %H:%M} UTC"
    echo_table(
        ["", str(cache.folder)],
        [
            ("originals", f"{found.originals:,}"),
            ("URIs", f"{found.entries:,}"),
            ("size", megabytes(found.bytes)),
            ("unused for longest since", oldest),
            ("being written", f"{found.unfinished:,}"),
        ],
    )


@app.command(epilog="Example:  shashin cache prune --max-bytes 5000000000 --yes")
def prune(
    folder: FolderOption = None,
    max_bytes: Annotated[
        int,
        typer.Option(
            envvar="SHASHIN_CACHE_BYTES", min=0, help="Maximum size of the cache, in bytes."
        ),
    ] = CacheSettings.model_fields["cache_bytes"].default,
    seconds: Annotated[
        float,
        typer.Option(
            envvar="SHASHIN_CACHE_SECONDS",
            min=0,
            help="Remove what was not used for this many seconds.",
        ),
    ] = CacheSettings.model_fields["cache_seconds"].default,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Remove them, instead of only counting them.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Remove what was not used for longest; shows only what would be removed without --yes.

    It may run while downloaders use the cache: what they read meanwhile stays readable.
    """
    cache = _cache(folder, max_bytes=max_bytes, seconds=seconds)
    pruned = cache.prune(dry_run=not yes)
    if pruned is None:
        raise DiskUnavailable(
            f"{cache.folder} was not pruned: another process is pruning it, or it cannot be read"
        )
    if as_json:
        echo_json({"folder": str(cache.folder), "dry_run": not yes, **asdict(pruned)})
        return
    done = "removed" if yes else "would remove"
    echo(
        f"{done} {pruned.expired:,} originals for their age and {pruned.surplus:,} for the size of "
        f"the cache, {megabytes(pruned.bytes)}; {megabytes(pruned.left_bytes)} "
        f"{'are left' if yes else 'would be left'}"
    )
    if not yes:
        echo("nothing was changed: add --yes to remove them", style="yellow")


def _cache(folder: Path | None, *, max_bytes: int = 0, seconds: float = 0.0) -> OriginalsCache:
    if folder is None:
        raise UserError("no cache is named: use --folder, or set SHASHIN_CACHE_FOLDER")
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder: expected that of a cache of originals")
    return OriginalsCache(folder, max_bytes=max_bytes, keep_seconds=seconds)
