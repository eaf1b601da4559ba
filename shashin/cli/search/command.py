"""``shashin search``: search by photo, vector or listing; prints a table, JSON or a contact sheet."""

from __future__ import annotations

import io
import json
import webbrowser
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import typer

from shashin.cli.options import DEFAULT_STATE, JsonOption, RouterOption, StateOption
from shashin.cli.router_command import calls_router
from shashin.cli.search.contact_sheet import photo_uris, price_of, sheet_hits, sheet_html
from shashin.cli.search.contact_sheet import thumbnail_data_uri as picture_of
from shashin.cli.search.filter_options import (
    BrandOption,
    CategoryOption,
    PriceOption,
    SinceOption,
    UnderOption,
    UntilOption,
    filter_from,
)
from shashin.client.coverage_text import coverage_document, coverage_line
from shashin.client.listing_events import check_listing_id
from shashin.client.router import RouterClient
from shashin.codecs.limits import MAX_PHOTO_BYTES
from shashin.errors import ShashinError, UserError
from shashin.local.system import System
from shashin.runtime.files import open_regular
from shashin.terminal.console import echo, echo_json, echo_stderr, echo_table, seconds
from shashin.terminal.run import run
from shashin.v1 import index_pb2, search_pb2

SHEET = "search.html"


@dataclass(frozen=True)
class Query:
    """A query: exactly one of photo, vector and listing id."""

    name: str
    photo: bytes | None = None
    vector: npt.NDArray[np.float32] | None = None
    """(dimensions,) float32."""
    listing_id: str | None = None


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        epilog="Example:  shashin search sofa.jpg --under furniture --price JPY:..20000 --open"
    )(calls_router(search))


def search(
    photo: Annotated[
        Path | None, typer.Argument(help="Photo to search for.", dir_okay=False)
    ] = None,
    *,
    listing: Annotated[
        str | None, typer.Option(help="Search by the photos of this listing instead.")
    ] = None,
    vector: Annotated[
        Path | None,
        typer.Option(
            help="Search by a vector instead: a .npy file, or a JSON list of numbers.",
            dir_okay=False,
        ),
    ] = None,
    k: Annotated[
        int, typer.Option("-k", help="Maximum number of listings to return.", min=1, max=500)
    ] = 10,
    category: CategoryOption = None,
    under: UnderOption = None,
    brand: BrandOption = None,
    price: PriceOption = None,
    listed_since: SinceOption = None,
    listed_until: UntilOption = None,
    open_sheet: Annotated[
        bool, typer.Option("--open", help="Show the hits with their photos in the browser.")
    ] = False,
    router: RouterOption = None,
    state: StateOption = DEFAULT_STATE,
    as_json: JsonOption = False,
) -> None:
    """Find visually similar listings by photo, listing or vector."""
    query = read_query(photo, listing, vector)
    row_filter = filter_from(
        categories=category,
        under=under,
        brands=brand,
        prices=price,
        listed_since=listed_since,
        listed_until=listed_until,
    )
    system = System(state)
    answer = run(_search(router or system.router_address(), query, k, row_filter))
    if as_json:
        echo_json(answer_document(answer))
    else:
        print_answer(answer)
    if open_sheet:
        _show_sheet(system, query, answer)


async def _search(
    address: str, query: Query, k: int, row_filter: index_pb2.Filter
) -> search_pb2.SearchResponse:
    async with RouterClient(address) as router:
        return await router.search(
            photo=query.photo,
            vector=query.vector,
            listing_id=query.listing_id,
            k=k,
            row_filter=row_filter,
        )


def read_query(photo: Path | None, listing: str | None, vector: Path | None) -> Query:
    """Return the query.

    Raises:
        UserError: if not exactly one is given, or its file cannot be read.
    """
    given = [query for query in (photo, listing, vector) if query is not None]
    if len(given) != 1:
        raise UserError(
            f"{len(given)} queries were given; expected exactly one of a photo, --listing ID or "
            "--vector FILE"
        )
    if listing is not None:
        check_listing_id(listing)
        return Query(f"like listing {listing}", listing_id=listing)
    path = photo or vector
    assert path is not None
    try:
        with open_regular(path) as file:
            data = file.read(MAX_PHOTO_BYTES + 1)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {(error.strerror or '').lower()}") from None
    if len(data) > MAX_PHOTO_BYTES:
        raise UserError(
            f"{path} is larger than {MAX_PHOTO_BYTES >> 20} MiB, the most that a query may have: "
            "use a smaller copy, 256 pixels on the short side are enough"
        )
    if photo is not None:
        return Query(photo.name, photo=data)
    return Query(path.name, vector=_vector_in(data, path))


def _vector_in(data: bytes, path: Path) -> npt.NDArray[np.float32]:
    try:
        if path.suffix == ".npy":
            found = np.load(io.BytesIO(data), allow_pickle=False)
        else:
            found = np.array(json.loads(data))
        vector: npt.NDArray[np.float32] = np.squeeze(found).astype(np.float32)
    except (ValueError, TypeError, OverflowError, RecursionError, MemoryError, EOFError) as error:
        raise UserError(
            f"{path} is neither a .npy file nor a JSON list of numbers: {error}"
        ) from None
    if vector.ndim != 1:
        raise UserError(f"{path} contains an array of shape {vector.shape}; expected one vector")
    return vector


def answer_document(answer: search_pb2.SearchResponse) -> dict[str, Any]:
    """Return the answer for JSON output; times in seconds."""
    return {
        "model_id": answer.model_id,
        "hits": [
            {
                "listing_id": hit.listing_id,
                "version": hit.version,
                "photo_number": hit.photo_number,
                "score": round(hit.score, 6),
                "tier": hit.tier,
                "category": hit.attributes.category,
                "brand": hit.attributes.brand,
                "price_minor": hit.attributes.price_minor,
                "currency": hit.attributes.currency,
            }
            for hit in answer.hits
        ],
        "coverage": coverage_document(answer.coverage),
        "failed_endpoints": [
            {"name": failed.name, "address": failed.address, "error": failed.error}
            for failed in answer.failed_endpoints
        ],
        "endpoints": answer.endpoints,
        "notes": list(answer.notes),
        "timings": {
            name: getattr(answer.timings, name) for name in ("embed", "fan_out", "merge", "total")
        },
    }


def print_answer(answer: search_pb2.SearchResponse) -> None:
    """Print the hits, the coverage and the search time."""
    if answer.hits:
        echo_table(
            ["", "listing", ">score", ">photo", "category", "brand", ">price", "tier"],
            [
                (
                    rank,
                    hit.listing_id,
                    f"{hit.score:.3f}",
                    hit.photo_number + 1,
                    hit.attributes.category,
                    hit.attributes.brand,
                    price_of(hit.attributes),
                    hit.tier,
                )
                for rank, hit in enumerate(answer.hits, start=1)
            ],
        )
    else:
        echo("no listings found")
    for note in answer.notes:
        echo(note, style="yellow")
    echo(
        f"{seconds(answer.timings.total)} over {answer.endpoints} endpoints, "
        f"model {answer.model_id}; {coverage_line(answer.coverage)}",
        style="dim" if answer.coverage.complete else "yellow",
    )
    for failed in answer.failed_endpoints:
        echo(f"{failed.name} at {failed.address} failed: {failed.error}", style="yellow")


def _show_sheet(system: System, query: Query, answer: search_pb2.SearchResponse) -> None:
    try:
        uris = run(photo_uris(system.kafka_address(), answer.hits))
    except ShashinError as error:
        echo_stderr(f"photos of the hits are not available: {error.message}", style="yellow")
        uris = {}
    picture = picture_of(query.photo) if query.photo is not None else None
    note = f"{len(answer.hits)} listings, {coverage_line(answer.coverage)}"
    page = system.folder / SHEET
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(
        sheet_html(query.name, picture, note, sheet_hits(answer.hits, uris)), encoding="utf-8"
    )
    shown = webbrowser.open(page.absolute().as_uri())
    echo_stderr(f"{'opened' if shown else 'no browser found; open'} {page}")
