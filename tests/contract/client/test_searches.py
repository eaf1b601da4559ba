"""Both clients over a real router: what they find, what they are refused, and who they are."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from shashin.access.api_key import new_key
from shashin.access.key_file import KeyFile
from shashin.client import (
    Attributes,
    DeadlineExceeded,
    Filter,
    InvalidQuery,
    ListingNotFound,
    Part,
    PriceRange,
    RateLimited,
    RetryPolicy,
    Unauthenticated,
    Unavailable,
    UserError,
)
from shashin.errors import ApiKeyMissing, ApiKeyRefused
from tests.support.both_clients import KINDS, Kind, asking
from tests.support.certificates import NAME, Certificates, replace
from tests.support.running_router import (
    FakeEmbedder,
    Listing,
    System,
    running_system,
    shard_of,
    vector_of,
)

pytestmark = pytest.mark.parametrize("kind", KINDS)

ONCE = RetryPolicy(attempts=1)


def address_of(system: System, scheme: str = "grpc", host: str = "127.0.0.1") -> str:
    assert system.settings is not None
    return f"{scheme}://{host}:{system.settings.grpc_port}"


@pytest.fixture
async def system(tmp_path: Path) -> AsyncIterator[System]:
    async with running_system(tmp_path) as running:
        await running.embedder("embedder", FakeEmbedder())
        await running.index("live", "live", shard_of([Listing("a", photos=2), Listing("b")]))
        await running.until_described()
        yield running


async def test_a_query_of_each_kind_finds_its_listing(
    system: System, kind: Kind, tmp_path: Path
) -> None:
    vector = vector_of("a")
    photo = vector.astype("<f4").tobytes()
    path = tmp_path / "a.jpg"
    path.write_bytes(photo)
    async with asking(kind, address_of(system), timeout=30.0) as ask:
        for query in (
            {"photo": photo},
            {"photo": path},
            {"photo": io.BytesIO(photo)},
            {"vector": vector},
            {"vector": vector.tolist()},
            {"parts": [Part(photo=path), Part(vector=vector, weight=0.5)]},
        ):
            answer = await ask("search", **query)
            first = answer.hits[0]
            assert (first.listing_id, first.version, first.photo.number) == ("a", 1, 0)
            assert first.score == pytest.approx(1, abs=0.01)
            assert first.photo.uri == "s3://photos/a/1/0.jpg"
            assert first.photo.hash
            assert first.attributes == Attributes("shoes", "", 1200, "JPY")
            assert (first.tier, answer.model_id, answer.complete) == ("live", "test-model", True)
            assert answer.timings.total > 0
        similar = await ask("similar", "a")
        assert [hit.listing_id for hit in similar.hits] == ["b"]


async def test_options_of_a_search_do_what_they_say(system: System, kind: Kind) -> None:
    vector = vector_of("a")
    async with asking(kind, address_of(system), timeout=30.0) as ask:

        async def found(**options: Any) -> list[tuple[str, int]]:
            answer = await ask("search", vector=vector, **options)
            return [(hit.listing_id, hit.photo.number) for hit in answer.hits]

        assert await found(k=1) == [("a", 0)]
        assert await found(exclude=["a"]) == [("b", 0)]
        assert await found(min_score=0.99) == [("a", 0)]
        assert len(await found(each_photo=True)) == 3
        assert await found(filter=Filter(price=PriceRange("JPY", max=1000))) == []
        assert len(await found(filter=Filter(under="shoes"))) == 2
        ids = (await ask("search", vector=vector, ids_only=True)).hits[0]
        assert (ids.attributes, ids.photo.uri) == (None, "")
        others = (await ask("search", vector=vector, other_photos=True)).hits[0].other_photos
        assert [photo.number for photo in others] == [1]


async def test_listings_are_located_and_the_index_has_a_status(system: System, kind: Kind) -> None:
    async with asking(kind, address_of(system), timeout=30.0) as ask:
        ids = [*(f"none-{number}" for number in range(1500)), "a", "b"]
        located = await ask("locate", ids)
        assert located.locations.keys() == {"a", "b"}
        assert located.locations["a"].photo_numbers == (0, 1)
        assert located.locations["a"].tiers == ("live",)
        assert not located.failed_endpoints
        assert (await ask("locate", "a")).locations.keys() == {"a"}
        status = await ask("status")
        assert [(one.name, one.ready, one.rows) for one in status.endpoints] == [("live", True, 3)]
        assert status.coverage.complete


async def test_what_the_router_refuses_is_raised_with_its_reason(
    system: System, kind: Kind
) -> None:
    async with asking(kind, address_of(system), timeout=30.0) as ask:
        with pytest.raises(InvalidQuery) as invalid:
            await ask("search", listing_id="a", filter=Filter(price=PriceRange("yen")))
        assert invalid.value.field == "filter.prices[0].currency"
        assert not invalid.value.retryable
        with pytest.raises(ListingNotFound, match="none"):
            await ask("similar", "none")


async def test_a_search_that_takes_too_long_ends_with_its_timeout(
    tmp_path: Path, kind: Kind
) -> None:
    async with running_system(tmp_path) as system:
        hung = await system.embedder("embedder", FakeEmbedder(hangs=True))
        await system.index("live", "live", shard_of([Listing("a")]))
        await system.until_described()
        async with asking(kind, address_of(system)) as ask:
            with pytest.raises(DeadlineExceeded):
                await ask("search", photo=b"photo", timeout=0.3)
        assert hung.handlers.calls <= 1


async def test_a_key_is_sent_and_read_again(tmp_path: Path, kind: Kind) -> None:
    accepted = KeyFile(tmp_path / "keys.json")
    (first, stored), (second, other) = (
        new_key(name, created=datetime.now(UTC)) for name in ("one", "two")
    )
    accepted.add(stored)
    file = tmp_path / "key"
    file.write_text("not a key of this router\n")
    async with running_system(tmp_path, accepted_keys_file=accepted.path) as system:
        address = address_of(system)
        async with asking(kind, address) as ask:
            with pytest.raises(ApiKeyMissing):
                await ask("status", timeout=30.0)
        async with asking(kind, address, api_key=second) as ask:
            with pytest.raises(ApiKeyRefused) as refused:
                await ask("status", timeout=30.0)
        assert isinstance(refused.value, Unauthenticated)
        assert second not in str(refused.value)
        async with asking(kind, address, api_key=first) as ask:
            await ask("status", timeout=30.0)
        async with asking(kind, address, api_key_file=file) as ask:
            with pytest.raises(Unauthenticated):
                await ask("status", timeout=30.0)
            replace(file, f"{first}\n".encode())
            await ask("status", timeout=30.0)
    assert other.id != stored.id


async def test_calls_beyond_a_keys_rate_are_sent_again_when_the_router_says(
    tmp_path: Path, kind: Kind
) -> None:
    accepted = KeyFile(tmp_path / "keys.json")
    often, stored = new_key("often", created=datetime.now(UTC), per_second=50.0, burst=1.0)
    accepted.add(stored)
    seldom, stored = new_key("seldom", created=datetime.now(UTC), per_second=0.001, burst=1.0)
    accepted.add(stored)
    async with running_system(tmp_path, accepted_keys_file=accepted.path) as system:
        await system.index("live", "live", shard_of([Listing("a")]))
        address = address_of(system)
        patient = RetryPolicy(attempts=1000, budget_at_start=1000)
        async with asking(kind, address, api_key=often, retries=patient) as ask:
            await asyncio.gather(*(ask("locate", "a", timeout=60.0) for _ in range(8)))
        async with asking(kind, address, api_key=seldom) as ask:
            await ask("locate", "a", timeout=60.0)
            # It would be let in long after its timeout.
            with pytest.raises(RateLimited) as limited:
                await ask("locate", "a", timeout=60.0)
        assert limited.value.retry_after_seconds > 60


async def test_tls_needs_a_trusted_authority_and_both_sides_a_certificate(
    tmp_path: Path, kind: Kind
) -> None:
    certificates = Certificates(tmp_path / "certificates")
    chain, key = certificates.issue("router")
    own_chain, own_key = certificates.issue("app")
    strange = Certificates(tmp_path / "other")
    front: dict[str, Any] = {
        "tls_certificate_file": chain,
        "tls_key_file": key,
        "tls_client_ca_file": certificates.authority,
    }
    own = {"ca_file": certificates.authority, "certificate_file": own_chain, "key_file": own_key}
    async with running_system(
        tmp_path, access=certificates.access("test"), name=NAME, **front
    ) as system:
        address = address_of(system, "grpcs", NAME)
        async with asking(kind, address, **own) as ask:
            await ask("status", timeout=30.0)
        listed = f"grpcs://127.0.0.1:{address.rpartition(':')[2]},127.0.0.1:1"
        async with asking(kind, listed, server_name=NAME, **own) as ask:
            await ask("status", timeout=30.0)
        for wrong in (
            {},
            {"ca_file": certificates.authority},
            own | {"ca_file": strange.authority},
            own | {"server_name": "another.example"},
        ):
            async with asking(kind, address, retries=ONCE, **wrong) as ask:
                with pytest.raises(Unavailable):
                    await ask("status", timeout=30.0)


async def test_arguments_that_contradict_each_other_are_refused_at_once(
    tmp_path: Path, kind: Kind
) -> None:
    for address, more in (
        ("http://router:1", {}),
        ("router:1", {"ca_file": tmp_path / "ca.pem"}),
        ("grpcs://router:1", {"ca_file": tmp_path / "none.pem"}),
        ("grpcs://router:1", {"key_file": tmp_path / "none.pem"}),
        ("grpcs://127.0.0.1:1,127.0.0.1:2", {}),
        ("router:1", {"api_key": "a", "api_key_file": tmp_path / "key"}),
        ("router:1", {"api_key": "a\nb"}),
    ):
        with pytest.raises(UserError, match=r"expected|no such file"):
            async with asking(kind, address, **more):
                raise AssertionError(address)
