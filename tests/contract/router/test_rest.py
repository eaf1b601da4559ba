"""REST of the router, over real HTTP and real endpoints."""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import aiohttp
import pytest
from prometheus_client import REGISTRY

from services.router.rest import body, server
from shashin.shards.format.row import RowAttributes
from tests.support.collector import collecting
from tests.support.running_router import (
    SHOES,
    FakeEmbedder,
    Listing,
    System,
    Vector,
    hits,
    running_system,
    shard_of,
    vector_of,
)
from tests.support.traced import tracing_on

PROBLEM = "application/problem+json"
LAMPS = RowAttributes("home/lamps", "ACME", 1200, "JPY", 1_700_000_000)
LISTINGS = [
    Listing(f"l-{i:02d}", photos=1 + i % 3, attributes=SHOES if i % 2 else LAMPS) for i in range(30)
]
EXAMPLE = Listing("m12345678", attributes=SHOES)
"""The listing of the examples in the OpenAPI document."""


async def fill(system: System, embedder: FakeEmbedder | None = None) -> None:
    await system.index("indexer", "live", shard_of([*LISTINGS, EXAMPLE]))
    await system.embedder("embedder", embedder or FakeEmbedder())
    await system.index("last", "hourly", shard_of([]))
    await system.until_described()


@pytest.fixture
async def indexed(system: System) -> System:
    await fill(system)
    return system


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


def packed(vector: Vector) -> bytes:
    return vector.astype("<f4").tobytes()


def found(answer: Mapping[str, Any]) -> list[tuple[str, int, int]]:
    return [(hit["listing_id"], hit["version"], hit["photo_number"]) for hit in answer["hits"]]


async def asked(
    http: aiohttp.ClientSession, system: System, path: str = "/v1/search", **request: Any
) -> dict[str, Any]:
    """Send a request that succeeds, and return its answer."""
    method = "GET" if path != "/v1/search" else "POST"
    async with http.request(method, f"{system.rest}{path}", **request) as response:
        text = await response.text()
        assert response.status == 200, text
        assert response.content_type == "application/json"
        answer: dict[str, Any] = json.loads(text)
        return answer


async def refused(
    http: aiohttp.ClientSession, system: System, path: str = "/v1/search", **request: Any
) -> tuple[int, dict[str, Any]]:
    """Send a request that is refused, and return the problem."""
    method = request.pop("method", "POST")
    async with http.request(method, f"{system.rest}{path}", **request) as response:
        assert response.content_type == PROBLEM, await response.text()
        problem: dict[str, Any] = json.loads(await response.text())
        assert problem["status"] == response.status
        assert problem["type"] == f"urn:shashin:problem:{problem['reason']}"
        assert problem["title"]
        return response.status, problem


async def test_a_vector_finds_what_it_finds_by_grpc(
    indexed: System, http: aiohttp.ClientSession
) -> None:
    query = vector_of("x")
    expected = await indexed.search(query, k=7, other_photos=True)
    answer = await asked(
        http, indexed, json={"vector": query.tolist(), "k": 7, "other_photos": True}
    )
    assert found(answer) == hits(expected)
    for hit, message in zip(answer["hits"], expected.hits, strict=True):
        assert hit["score"] == pytest.approx(message.score)
        assert (hit["uri"], hit["hash"]) == (message.photo_uri, message.photo_hash)
        assert hit["attributes"]["category"] == message.attributes.category
        assert hit["attributes"]["price"] == {"amount_minor": 1200, "currency": "JPY"}
        assert [one["photo_number"] for one in hit["other_photos"]] == [
            one.photo_number for one in message.other_photos
        ]
    assert answer["coverage"]["complete"]
    assert (answer["endpoints"], answer["endpoints_asked"]) == (2, 2)
    assert answer["model_id"] == expected.model_id
    assert answer["timings"]["total"] > 0
    times = {hit["attributes"]["listed_at"] for hit in answer["hits"]}
    assert times <= {None, "2023-11-14T22:13:20Z"}


async def test_a_photo_is_a_file_of_a_form_or_base64(
    indexed: System, http: aiohttp.ClientSession
) -> None:
    photo = packed(vector_of("l-04"))
    form = aiohttp.FormData()
    form.add_field("photo", photo, filename="photo.jpg")
    form.add_field("query", json.dumps({"k": 3}))
    answer = await asked(http, indexed, data=form)
    assert found(answer)[0] == ("l-04", 1, 0)
    assert len(answer["hits"]) == 3
    in_json = {"photo": base64.b64encode(photo).decode(), "k": 3}
    assert found(await asked(http, indexed, json=in_json)) == found(answer)


async def test_files_of_a_form_are_parts_of_a_query(
    indexed: System, http: aiohttp.ClientSession
) -> None:
    one, other = vector_of("l-04"), vector_of("l-09")
    form = aiohttp.FormData()
    form.add_field("front", packed(one), filename="front.jpg")
    form.add_field("photo", packed(other), filename="photo.jpg")
    parts = [{"upload": "front"}, {"upload": "photo", "weight": -0.5}, {"listing_id": "l-20"}]
    form.add_field("query", json.dumps({"parts": parts}))
    answer = await asked(http, indexed, data=form)
    in_json = [
        {"vector": one.tolist()},
        {"vector": other.tolist(), "weight": -0.5},
        {"listing_id": "l-20"},
    ]
    assert found(answer) == found(await asked(http, indexed, json={"parts": in_json}))
    assert "l-20" not in {hit["listing_id"] for hit in answer["hits"]}


async def test_filters_are_those_of_grpc(indexed: System, http: aiohttp.ClientSession) -> None:
    of_lamps = {f"l-{i:02d}" for i in range(0, 30, 2)}
    for row_filter in (
        {"category_prefixes": ["home"]},
        {"categories": ["home/lamps"]},
        {"brands": ["ACME", "Other"]},
        {"listed": [{"since": "2023-11-14T22:13:20Z", "until": "2023-11-14T23:13:21+01:00"}]},
        {"prices": [{"currency": "JPY", "min_minor": 1200, "max_minor": 1200}], "brands": ["ACME"]},
    ):
        body = {"vector": vector_of("x").tolist(), "k": 100, "filter": row_filter}
        answer = await asked(http, indexed, json=body)
        assert {hit["listing_id"] for hit in answer["hits"]} == of_lamps
    body["filter"] = {"categories": ["home/lmps"]}
    answer = await asked(http, indexed, json=body)
    assert answer["hits"] == []
    assert "home/lmps" in answer["notes"][0]


async def test_listings_that_are_similar_to_one_have_a_url(
    indexed: System, http: aiohttp.ClientSession
) -> None:
    answer = await asked(http, indexed, "/v1/listings/l-05/similar?k=5&excluded_listing_id=l-06")
    assert found(answer) == hits(
        await indexed.search(listing_id="l-05", k=5, excluded_listing_ids=["l-06"])
    )
    answer = await asked(http, indexed, "/v1/listings/l-05/similar?category_prefix=home&k=100")
    assert len(answer["hits"]) == 15
    status, problem = await refused(http, indexed, "/v1/listings/none/similar", method="GET")
    assert (status, problem["reason"]) == (404, "ListingNotFound")


@pytest.mark.parametrize(
    "listing_id", ["a/b", "/a", "a/similar", "listings/newest", "a%2Fb", "ü ?#"]
)
async def test_ids_in_a_url_may_have_any_character(
    indexed: System, http: aiohttp.ClientSession, listing_id: str
) -> None:
    path = f"/v1/listings/{quote(listing_id, safe='')}/similar"
    status, problem = await refused(http, indexed, path, method="GET")
    assert (status, problem["reason"]) == (404, "ListingNotFound")
    assert f"listing {listing_id!r} " in problem["detail"]


async def test_requests_are_counted_by_route_and_status(
    indexed: System, http: aiohttp.ClientSession
) -> None:
    def counted(route: str, status: str) -> float:
        labels = {"route": route, "status": status}
        return REGISTRY.get_sample_value("shashin_rest_answers_total", labels) or 0.0

    of = [
        ("/v1/search", "200"),
        ("/v1/search", "400"),
        ("/v1/listings/{listing_id}/similar", "404"),
        ("none", "404"),
    ]
    before = [counted(*one) for one in of]
    await asked(http, indexed, json={"listing_id": "l-05"})
    await refused(http, indexed, json={})
    await refused(http, indexed, "/v1/listings/none/similar", method="GET")
    await refused(http, indexed, "/v1/nothing/at/all", method="GET")
    assert [counted(*one) for one in of] == [number + 1 for number in before]
    seconds = REGISTRY.get_sample_value("shashin_rest_seconds_count", {"route": "/v1/search"})
    assert seconds is not None
    assert seconds >= 2


async def test_a_search_by_rest_is_in_the_trace_of_its_caller(
    indexed: System, http: aiohttp.ClientSession
) -> None:
    trace, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    with collecting() as collector:
        with tracing_on(collector, share=0.0):
            headers = {"traceparent": f"00-{trace}-{parent}-01"}
            await asked(http, indexed, json={"listing_id": "l-05"}, headers=headers)
            await asked(http, indexed, json={"listing_id": "l-05"})
        spans = collector.spans()
    assert {span.trace_id for span in spans} == {trace}
    (own,) = [span for span in spans if span.name == "POST"]
    assert own.parent_id == parent
    assert own.attributes["http.route"] == "/v1/search"
    assert own.attributes["http.response.status_code"] == 200
    assert any(span.parent_id == own.span_id for span in spans)


async def test_the_status_has_endpoints_and_coverage(
    indexed: System, http: aiohttp.ClientSession
) -> None:
    status = await asked(http, indexed, "/v1/status")
    assert {one["name"]: one["ready"] for one in status["endpoints"]} == {
        "indexer": True,
        "last": True,
    }
    assert status["coverage"]["complete"]
    assert status["model_id"] == "test-model"


VECTOR = vector_of("x").tolist()


@pytest.mark.parametrize(
    ("body", "status", "reason", "detail"),
    [
        ({}, 400, "InvalidQuery", "nothing to search for"),
        ({"vector": VECTOR, "k": 0}, 400, "InvalidQuery", "k: "),
        ({"vector": VECTOR, "k": 10**9}, 400, "InvalidQuery", "k: "),
        ({"vector": VECTOR[1:]}, 400, "InvalidQuery", "vector has 60 bytes"),
        ({"vector": [1e300, *VECTOR[1:]]}, 400, "InvalidQuery", "not finite"),
        ({"vector": [0.0] * 16}, 400, "InvalidQuery", "all zeros"),
        ({"vector": VECTOR, "what": 1}, 400, "InvalidQuery", "what: "),
        ({"vector": VECTOR, "listing_id": "a"}, 400, "InvalidQuery", "vector and listing_id"),
        ({"photo": "no base64!"}, 400, "InvalidQuery", "photo: "),
        ({"photo": ""}, 422, "PhotoEmpty", "photo is empty"),
        ({"listing_id": "none"}, 404, "ListingNotFound", "'none' is not searchable"),
        ({"parts": [{"upload": "a"}]}, 400, "InvalidQuery", "the request is none"),
        (
            {
                "vector": VECTOR,
                "filter": {"prices": [{"currency": "JPY", "min_minor": 5, "max_minor": 4}]},
            },
            400,
            "InvalidQuery",
            "filter.prices[0]",
        ),
        (
            {"vector": VECTOR, "filter": {"listed": [{"since": "2024-01-01T00:00:00"}]}},
            400,
            "InvalidQuery",
            "filter.listed.0.since: ",
        ),
        (
            {"photo": "AAAA", "crop": {"left": 0.5, "top": 0, "right": 0.5, "bottom": 1}},
            400,
            "InvalidQuery",
            "crop.left is 0.5 and right is 0.5",
        ),
    ],
    ids=str,
)
async def test_a_bad_query_is_a_problem_that_says_what_to_change(
    indexed: System,
    http: aiohttp.ClientSession,
    body: dict[str, Any],
    status: int,
    reason: str,
    detail: str,
) -> None:
    found_status, problem = await refused(http, indexed, json=body)
    assert (found_status, problem["reason"]) == (status, reason)
    assert detail in problem["detail"]
    assert not problem["retryable"]


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b"", "Invalid JSON"),
        (b"{", "Invalid JSON"),
        (b"\xff\xfe", "Invalid JSON"),
        (b"[]", "the query: "),
        (b'{"vector": [NaN]}', "vector.0: "),
        (b'{"vector": [1' + b"0" * 400 + b"]}", "vector.0: "),
    ],
)
async def test_a_body_that_is_no_query_is_a_problem(
    indexed: System, http: aiohttp.ClientSession, body: bytes, detail: str
) -> None:
    headers = {"Content-Type": "application/json"}
    status, problem = await refused(http, indexed, data=body, headers=headers)
    assert (status, problem["reason"]) == (400, "InvalidQuery")
    assert detail in problem["detail"]


@pytest.mark.parametrize(
    ("fields", "detail"),
    [
        ({"query": "{}", "more": "x"}, "a field 'more'"),
        ({"query": '{"parts": [{"upload": "side"}]}'}, "no file 'side'"),
        ({"query": "{"}, "Invalid JSON"),
    ],
)
async def test_a_form_that_does_not_fit_is_a_problem(
    indexed: System, http: aiohttp.ClientSession, fields: dict[str, str], detail: str
) -> None:
    form = aiohttp.FormData(default_to_multipart=True)
    for name, value in fields.items():
        form.add_field(name, value)
    status, problem = await refused(http, indexed, data=form)
    assert (status, problem["reason"]) == (400, "InvalidQuery")
    assert detail in problem["detail"]


async def test_a_file_that_nothing_names_is_a_problem(
    indexed: System, http: aiohttp.ClientSession
) -> None:
    form = aiohttp.FormData()
    form.add_field("picture", b"x", filename="x.jpg")
    _, problem = await refused(http, indexed, data=form)
    assert "a file 'picture' that no part names" in problem["detail"]
    headers = {"Content-Type": "multipart/form-data"}
    status, problem = await refused(http, indexed, data=b"--what", headers=headers)
    assert (status, problem["reason"]) == (400, "InvalidQuery")


async def test_what_is_no_route_is_a_problem(indexed: System, http: aiohttp.ClientSession) -> None:
    for method, path, status, reason in (
        ("GET", "/v1/nothing", 404, "NotFound"),
        ("GET", "/v1/search", 405, "MethodNotAllowed"),
        ("GET", "/v1/listings/l-05/similar?k=0", 400, "InvalidQuery"),
        ("GET", "/v1/listings/l-05/similar?min_score=nan", 400, "InvalidQuery"),
    ):
        found_status, problem = await refused(http, indexed, path, method=method)
        assert (found_status, problem["reason"]) == (status, reason)
    status, problem = await refused(
        http, indexed, data=b"x", headers={"Content-Type": "text/plain"}
    )
    assert (status, problem["reason"]) == (415, "UnsupportedMediaType")


async def test_a_body_of_a_hundred_megabytes_is_refused_before_it_is_read(
    indexed: System, http: aiohttp.ClientSession
) -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield bytes(1024 * 1024)

    headers = {"Content-Type": "application/json"}
    status, problem = await refused(http, indexed, data=endless(), headers=headers)
    assert (status, problem["reason"]) == (413, "RequestTooLarge")
    url = urlsplit(indexed.rest)
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    writer.write(
        b"POST /v1/search HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Content-Length: 104857600\r\n\r\n"
    )
    assert b" 413 " in await reader.readline()
    writer.close()


async def test_a_client_that_never_finishes_is_disconnected(
    indexed: System, http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "HEADER_SECONDS", 0.3)
    monkeypatch.setattr(body, "BODY_SECONDS", 0.3)
    url = urlsplit(indexed.rest)
    for sent in (b"", b"GET /v1/status HTTP/1.1\r\nHo"):
        reader, writer = await asyncio.open_connection(url.hostname, url.port)
        writer.write(sent)
        assert await reader.read() == b""
        writer.close()
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    writer.write(
        b"POST /v1/search HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Content-Length: 100\r\n\r\n{"
    )
    assert b" 408 " in await reader.readline()
    writer.close()
    assert found(await asked(http, indexed, json={"listing_id": "l-05"}))


async def test_what_is_not_http_is_a_problem(indexed: System) -> None:
    url = urlsplit(indexed.rest)
    for sent in (
        b"\x16\x03\x01\x00\xa5\x01\x00\r\n\r\n",
        b"GET /%b HTTP/1.1\r\n\r\n" % (b"x" * 100_000),
    ):
        reader, writer = await asyncio.open_connection(url.hostname, url.port)
        writer.write(sent)
        head, _, document = (await reader.read()).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 400 ")
        assert PROBLEM.encode() in head
        assert json.loads(document)["reason"] == "MalformedRequest"
        writer.close()


async def test_without_endpoints_a_retry_is_proposed(
    system: System, http: aiohttp.ClientSession
) -> None:
    async with http.post(f"{system.rest}/v1/search", json={"vector": VECTOR}) as response:
        problem = json.loads(await response.text())
        assert (response.status, problem["reason"]) == (503, "NoEndpoint")
        assert problem["retryable"]
        assert int(response.headers["Retry-After"]) >= 1


async def test_pages_of_other_origins_are_let_in_only_by_a_setting(
    tmp_path: Path, http: aiohttp.ClientSession
) -> None:
    allow = "Access-Control-Allow-Origin"
    for origins, expected in (
        ("", None),
        ("https://a.example, https://b.example", "https://b.example"),
    ):
        async with running_system(tmp_path, rest_origins=origins) as system:
            headers = {"Origin": "https://b.example", "Access-Control-Request-Method": "POST"}
            async with http.options(f"{system.rest}/v1/search", headers=headers) as response:
                assert response.headers.get(allow) == expected
            async with http.get(
                f"{system.rest}/v1/status", headers={"Origin": "https://c.example"}
            ) as response:
                assert response.status == 200
                assert allow not in response.headers


async def test_requests_made_from_the_openapi_document_are_answered_as_it_says(
    system: System, tmp_path: Path
) -> None:
    await fill(system, FakeEmbedder(vector=vector_of("x")))  # for whatever is made as a photo
    checks = [
        *("not_a_server_error", "status_code_conformance", "content_type_conformance"),
        *("response_schema_conformance", "negative_data_rejection", "unsupported_method"),
    ]
    # A deadline of a millisecond cannot be met, by the search or by the look-up of its listing.
    (tmp_path / "schemathesis.toml").write_text(
        '[checks]\nnot_a_server_error.expected-statuses = ["2xx", "4xx", 503, 504]\n'
    )
    process = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).with_name("schemathesis")),
        *("run", f"{system.rest}/v1/openapi.json", "--checks", ",".join(checks)),
        *("--max-examples", "40", "--generation-deterministic", "--no-color"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd=tmp_path,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
