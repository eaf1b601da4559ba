"""``shashin coverage`` and ``shashin locate``: what a search can find now, and in which tier."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from shashin.cli.options import DEFAULT_STATE, JsonOption, RouterOption, StateOption
from shashin.cli.router_command import calls_router
from shashin.client.coverage_text import coverage_document, coverage_line, coverage_style
from shashin.client.endpoint_text import endpoint_document, readiness
from shashin.client.listing_events import check_listing_id
from shashin.client.router import RouterClient
from shashin.local.system import System
from shashin.terminal.console import echo, echo_json, echo_table
from shashin.terminal.run import run
from shashin.v1 import search_pb2


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(epilog="Example:  shashin coverage || echo incomplete")(calls_router(coverage))
    app.command(epilog="Example:  shashin locate listing-000012 listing-000013")(
        calls_router(locate)
    )


def coverage(
    router: RouterOption = None,
    state: StateOption = DEFAULT_STATE,
    as_json: JsonOption = False,
) -> None:
    """Check that the served shards cover the whole log; exits with 1 if they do not.

    Events that the downloader or the embedder has not processed are not in the log yet. They do not
    change the exit code; the output says how far these stages are behind.
    """
    address = router or System(state).router_address()
    status = run(_status(address))
    if as_json:
        echo_json(status_document(status))
    else:
        print_status(status)
    if not status.coverage.complete:
        raise typer.Exit(1)


async def _status(address: str) -> search_pb2.StatusResponse:
    async with RouterClient(address) as router:
        return await router.status()


def print_status(status: search_pb2.StatusResponse) -> None:
    """Print the router's endpoints and the coverage."""
    echo_table(
        ["endpoint", "tier", "address", "model", "ready", ">shards", ">rows", ">hidden", "error"],
        [
            (
                endpoint.name,
                endpoint.tier,
                endpoint.address,
                endpoint.model_id or "-",
                readiness(endpoint, status.model_id),
                endpoint.shards,
                f"{endpoint.rows:,}",
                f"{endpoint.hidden_rows:,}",
                endpoint.error,
            )
            for endpoint in status.endpoints
        ],
    )
    echo(coverage_line(status.coverage), style=coverage_style(status.coverage))


def status_document(status: search_pb2.StatusResponse) -> dict[str, Any]:
    """Return the router's status for JSON output."""
    return {
        "model_id": status.model_id,
        "coverage": coverage_document(status.coverage),
        "endpoints": [endpoint_document(endpoint) for endpoint in status.endpoints],
    }


def locate(
    listing_ids: Annotated[list[str], typer.Argument(help="IDs of the listings to look up.")],
    router: RouterOption = None,
    state: StateOption = DEFAULT_STATE,
    as_json: JsonOption = False,
) -> None:
    """Show which listings are searchable; exits with 1 if any is not."""
    for listing_id in listing_ids:
        check_listing_id(listing_id)
    address = router or System(state).router_address()
    found = run(_locate(address, listing_ids))
    if as_json:
        echo_json(
            [
                {
                    "listing_id": listing_id,
                    "searchable": listing_id in found,
                    "version": found[listing_id].version if listing_id in found else None,
                    "photo_numbers": list(found[listing_id].photo_numbers)
                    if listing_id in found
                    else [],
                    "tiers": list(found[listing_id].tiers) if listing_id in found else [],
                }
                for listing_id in listing_ids
            ]
        )
    else:
        echo_table(
            ["listing", ">version", ">photos", "tiers"],
            [_row(listing_id, found.get(listing_id)) for listing_id in listing_ids],
        )
    if len(found) < len(set(listing_ids)):
        raise typer.Exit(1)


def _row(listing_id: str, location: search_pb2.Location | None) -> tuple[object, ...]:
    if location is None:
        return listing_id, "-", "-", "not searchable"
    return listing_id, location.version, len(location.photo_numbers), ", ".join(location.tiers)


async def _locate(address: str, listing_ids: list[str]) -> dict[str, search_pb2.Location]:
    async with RouterClient(address) as router:
        return await router.locate(listing_ids)
