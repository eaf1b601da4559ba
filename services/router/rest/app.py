"""The routes of REST."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Path, Query, Request, Response
from fastapi.openapi.utils import get_openapi
from starlette.middleware.cors import CORSMiddleware

from services.router.active import ActiveModel
from services.router.costs import cost_of_query
from services.router.gate import Gate
from services.router.rest import schema
from services.router.rest.body import search_body
from services.router.rest.convert import answer_of, coverage_of, endpoint_of, query_of
from services.router.rest.newest_route import add_newest
from services.router.rest.page_files import add_page
from services.router.rest.pipeline_route import add_pipeline
from services.router.rest.problems import HttpError, add_problems, responses
from shashin.access.keyring import key_in
from shashin.thumbnails.reader import ThumbnailReader

OPENAPI_PATH = "/v1/openapi.json"

_REFUSALS = (400, 401, 404, 409, 422, 429, 503, 504)
_FOR_EVER = "private, max-age=31536000, immutable"
"""What is named by its content never changes."""

_SEARCH_BODY = {
    "required": True,
    "content": {
        "application/json": {"schema": {"$ref": "#/components/schemas/SearchQuery"}},
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "properties": {
                    "photo": {
                        "type": "string",
                        "format": "binary",
                        "description": "A JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF or HEIC file.",
                    },
                    "query": {
                        "type": "string",
                        "contentMediaType": "application/json",
                        "contentSchema": {"$ref": "#/components/schemas/SearchQuery"},
                        "description": "Everything else, in JSON.",
                    },
                },
            }
        },
    },
}

ListingIds = Annotated[list[schema.ListingId], Query(max_length=50)]


def make_app(
    active: ActiveModel,
    gate: Gate,
    *,
    thumbnails: ThumbnailReader | None = None,
    origins: Sequence[str] = (),
) -> FastAPI:
    """Return the app; searches use the model that is active when they begin.

    The gate decides on every request but those for the OpenAPI document and the files of the search page. Pages from ``origins`` may call it
    from a browser.
    """
    app = FastAPI(
        title="Shashin",
        summary="Search a marketplace by photo.",
        version="1",
        openapi_url=OPENAPI_PATH,
        docs_url=None,  # its page needs files from elsewhere
        redoc_url=None,
    )
    add_problems(app)
    if origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(origins),
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type"],
        )

    # Coroutines, since FastAPI runs anything else in a thread, and the gate belongs to the event loop.
    async def admits(request: Request) -> None:
        gate.check(partial(key_in, request.headers.items()), sheds=True)

    async def knows(request: Request) -> None:
        gate.check(partial(key_in, request.headers.items()), sheds=False)

    searches, looks = [Depends(admits)], [Depends(knows)]

    async def search(query: schema.SearchQuery, uploads: dict[str, bytes]) -> schema.SearchAnswer:
        wanted = query_of(query, uploads)
        cost = cost_of_query(wanted, active.current.photo_vectors)
        with gate.admitted(wanted.kind, cost, None), active.in_use() as model:
            answer = await model.searcher.search(wanted, None)
            return answer_of(answer, model.space.model_id, ids_only=query.ids_only)

    @app.post(
        "/v1/search",
        summary="Search by a photo, a vector, a listing, or several of these",
        response_model=schema.SearchAnswer,
        responses=responses(*_REFUSALS, 408, 413, 415),
        dependencies=searches,
        openapi_extra={"requestBody": _SEARCH_BODY},
    )
    async def post_search(request: Request) -> schema.SearchAnswer:
        body = await search_body(request)
        return await search(body.query, dict(body.uploads))

    @app.get(
        # An id may have slashes; its neighbours in the path are fixed.
        "/v1/listings/{listing_id:path}/similar",
        summary="Search by the photos of a listing",
        response_model=schema.SearchAnswer,
        responses=responses(*_REFUSALS),
        dependencies=searches,
    )
    async def similar(
        listing_id: Annotated[schema.ListingId, Path()],
        k: Annotated[int, Query(ge=1, le=1000)] = 10,
        category: Annotated[list[schema.Text], Query(max_length=20)] = [],  # noqa: B006
        category_prefix: Annotated[list[schema.Text], Query(max_length=20)] = [],  # noqa: B006
        brand: Annotated[list[schema.Text], Query(max_length=20)] = [],  # noqa: B006
        min_score: Annotated[float | None, Query(ge=-1, le=1, allow_inf_nan=False)] = None,
        each_photo: bool = False,
        other_photos: bool = False,
        ids_only: bool = False,
        excluded_listing_id: ListingIds = [],  # noqa: B006
        deadline_ms: Annotated[int | None, Query(ge=1, le=60_000)] = None,
    ) -> schema.SearchAnswer:
        query = schema.SearchQuery(
            listing_id=listing_id,
            k=k,
            filter=schema.Filter(
                categories=category, category_prefixes=category_prefix, brands=brand
            ),
            min_score=min_score,
            each_photo=each_photo,
            other_photos=other_photos,
            ids_only=ids_only,
            excluded_listing_ids=excluded_listing_id,
            deadline_ms=deadline_ms,
        )
        return await search(query, {})

    add_newest(app, active, gate, dependencies=searches)

    @app.get(
        "/v1/status",
        summary="The endpoints, and what of the log they cover",
        response_model=schema.Status,
        responses=responses(401),
        dependencies=looks,
    )
    async def status() -> schema.Status:
        model = active.current
        return schema.Status(
            model_id=model.space.model_id,
            endpoints=[endpoint_of(state) for state in model.watch.states()],
            coverage=coverage_of(model.watch.coverage()),
        )

    add_pipeline(app, active, looks)

    @app.get(
        "/v1/thumbnails/{photo_hash}.jpg",
        summary="The thumbnail of a photo, by the hash of a hit",
        response_class=Response,
        responses={
            200: {"content": {"image/jpeg": {"schema": {"type": "string", "format": "binary"}}}},
            **responses(400, 401, 404, 422, 503),
        },
        dependencies=looks,
    )
    async def thumbnail(
        photo_hash: Annotated[str, Path(pattern="^[0-9a-f]{16}$", examples=["0123456789abcdef"])],
    ) -> Response:
        found = None if thumbnails is None else await thumbnails.read(photo_hash)
        if found is None:
            raise HttpError(
                HTTPStatus.NOT_FOUND,
                "ThumbnailNotFound",
                f"there is no thumbnail of {photo_hash}, or not yet"
                if thumbnails is not None
                else "this router has no thumbnails: SHASHIN_THUMBNAILS is not set",
            )
        return Response(found, media_type="image/jpeg", headers={"Cache-Control": _FOR_EVER})

    add_page(app)
    app.openapi = lambda: _document(app)  # type: ignore[method-assign]
    return app


def _document(app: FastAPI) -> dict[str, Any]:
    """Return the OpenAPI document, with what no route names by itself."""
    if app.openapi_schema is None:
        document = get_openapi(
            title=app.title, version=app.version, summary=app.summary, routes=app.routes
        )
        schemas = document["components"]["schemas"]
        for model in (schema.SearchQuery, schema.Problem):
            own = model.model_json_schema(ref_template="#/components/schemas/{model}")
            schemas |= own.pop("$defs", {})
            schemas[model.__name__] = own
        app.openapi_schema = document
    return app.openapi_schema
