"""TLS at the router's port: certificates, those of clients, and their renewal without a restart."""

from __future__ import annotations

import asyncio
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography.hazmat.primitives import serialization
from prometheus_client import REGISTRY

from shashin.client.router import RouterClient
from shashin.errors import NoEndpoint, SettingsError, UserError
from shashin.rpc.router_access import RouterAccess, open_router_channel
from shashin.v1 import search_pb2, search_pb2_grpc
from tests.support.certificates import NAME, Certificates, replace
from tests.support.running_router import System, running_system
from tests.support.waiting import until


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    return Certificates(tmp_path / "certificates")


def settings(certificates: Certificates, *, mutual: bool = False) -> dict[str, Any]:
    chain, key = certificates.issue("router")
    return {
        "tls_certificate_file": chain,
        "tls_key_file": key,
        "tls_client_ca_file": certificates.authority if mutual else None,
    }


def port_of(system: System) -> int:
    assert system.settings is not None
    return system.settings.grpc_port


async def answers(system: System, access: RouterAccess, scheme: str = "grpcs") -> bool:
    """Whether a new connection gets an answer."""
    address = f"{scheme}://{NAME}:{port_of(system)}"
    async with open_router_channel(address, access) as channel:
        stub = search_pb2_grpc.SearchServiceStub(channel)
        try:
            await stub.Status(search_pb2.StatusRequest(), timeout=20.0)
        except grpc.aio.AioRpcError as error:
            if error.code() == grpc.StatusCode.UNAVAILABLE:
                return False
            raise
    return True


async def served(system: System) -> str:
    """Return the certificate that a new connection gets."""
    address = "127.0.0.1", port_of(system)
    return await asyncio.to_thread(ssl.get_server_certificate, address, timeout=20.0)


async def test_only_clients_that_trust_the_authority_and_use_tls_get_answers(
    tmp_path: Path, certificates: Certificates
) -> None:
    access, stranger = certificates.access(), Certificates(tmp_path / "other").access()
    async with running_system(
        tmp_path, access=access, name=NAME, **settings(certificates)
    ) as system:
        await system.status()
        assert await answers(system, access)
        assert not await answers(system, stranger)
        assert not await answers(system, RouterAccess())
        assert not await answers(system, access, scheme="grpc")


async def test_with_authorities_of_clients_each_needs_a_certificate_of_one(
    tmp_path: Path, certificates: Certificates
) -> None:
    access = certificates.access("app")
    strange_chain, strange_key = Certificates(tmp_path / "other").issue("app")
    stranger = RouterAccess(
        router_ca_file=certificates.authority,
        router_certificate_file=strange_chain,
        router_key_file=strange_key,
    )
    front = settings(certificates, mutual=True)
    async with running_system(tmp_path, access=access, name=NAME, **front) as system:
        await system.status()
        assert not await answers(system, certificates.access())
        assert not await answers(system, stranger)
        async with RouterClient(f"grpcs://{NAME}:{port_of(system)}", access=access) as client:
            assert (await client.status()).model_id == "test-model"


async def test_a_renewed_certificate_is_used_by_new_connections_and_old_ones_go_on(
    tmp_path: Path, certificates: Certificates
) -> None:
    front = settings(certificates)
    access = certificates.access()
    async with running_system(tmp_path, access=access, name=NAME, **front) as system:
        before = await served(system)
        certificates.issue("router")

        async def renewed() -> bool:
            return await served(system) != before

        await until(renewed, "new connections get the new certificate")
        await system.status()
        assert await answers(system, access)


async def test_a_wrong_certificate_at_renewal_keeps_the_old_one_and_is_named(
    tmp_path: Path, certificates: Certificates
) -> None:
    front = settings(certificates)
    access = certificates.access()
    chain = front["tls_certificate_file"]
    async with running_system(tmp_path, access=access, name=NAME, **front) as system:
        before, good = await served(system), chain.read_bytes()

        def named() -> bool:
            return any("certificates: those of before" in p for p in system.health.problems())

        for wrong in (b"no certificate", certificates.issue("other")[0].read_bytes()):
            replace(chain, wrong)
            await until(named, "it is on /healthz")
            assert await served(system) == before
            assert await answers(system, access)
            replace(chain, good)
            await until(lambda: not named(), "it is well again")
        chain.unlink()
        await until(named, "a missing file is on /healthz")
        assert await answers(system, access)


async def test_authorities_of_clients_are_replaced_without_a_restart(
    tmp_path: Path, certificates: Certificates
) -> None:
    front = settings(certificates, mutual=True)
    others = Certificates(tmp_path / "other")
    chain, key = others.issue("app")
    newcomer = RouterAccess(
        router_ca_file=certificates.authority, router_certificate_file=chain, router_key_file=key
    )
    access = certificates.access("app")
    trusted = tmp_path / "authorities.pem"
    replace(trusted, certificates.authority.read_bytes())
    front["tls_client_ca_file"] = trusted
    async with running_system(tmp_path, access=access, name=NAME, **front) as system:
        assert not await answers(system, newcomer)
        replace(trusted, certificates.authority.read_bytes() + others.authority.read_bytes())
        await until(lambda: answers(system, newcomer), "both authorities are trusted")
        assert await answers(system, access)
        replace(trusted, others.authority.read_bytes())

        async def gone() -> bool:
            return not await answers(system, access)

        await until(gone, "the old authority is not trusted any longer")
        await system.status()


@pytest.mark.parametrize(
    ("wrong", "names"),
    [
        ("tls_certificate_file", "SHASHIN_TLS_CERTIFICATE_FILE"),
        ("tls_key_file", "SHASHIN_TLS_KEY_FILE"),
        ("tls_client_ca_file", "SHASHIN_TLS_CLIENT_CA_FILE"),
    ],
)
@pytest.mark.parametrize("content", [None, b"", b"no PEM", b"-----BEGIN CERTIFICATE-----\n"])
async def test_a_router_does_not_start_with_a_wrong_file_and_names_its_variable(
    tmp_path: Path, certificates: Certificates, wrong: str, names: str, content: bytes | None
) -> None:
    front = settings(certificates, mutual=True)
    if wrong == "tls_client_ca_file":
        front[wrong] = tmp_path / "authorities.pem"
    front[wrong].unlink(missing_ok=True)
    if content is not None:
        front[wrong].write_bytes(content)
    with pytest.raises(SettingsError, match=names):
        async with running_system(tmp_path, access=certificates.access(), name=NAME, **front):
            pass


async def test_a_key_of_another_certificate_and_an_encrypted_one_are_refused(
    tmp_path: Path, certificates: Certificates
) -> None:
    front = settings(certificates)
    other, encrypted = certificates.issue("other")[1], tmp_path / "encrypted.key"
    private = serialization.load_pem_private_key(front["tls_key_file"].read_bytes(), None)
    encrypted.write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"password"),
        )
    )
    for wrong in (other, encrypted):
        with pytest.raises(SettingsError, match="private key"):
            async with running_system(tmp_path, **{**front, "tls_key_file": wrong}):
                pass


async def test_when_the_certificate_expires_is_known_and_an_expired_one_is_refused(
    tmp_path: Path, certificates: Certificates
) -> None:
    front = settings(certificates)
    end = datetime.now(UTC).replace(microsecond=0) + timedelta(days=30)
    certificates.issue("router", until=end)
    access = certificates.access()
    async with running_system(tmp_path, access=access, name=NAME, **front) as system:
        name = "shashin_certificate_expires_seconds"
        assert REGISTRY.get_sample_value(name) == end.timestamp()
        before = await served(system)
        certificates.issue("router", until=datetime.now(UTC) - timedelta(days=1))
        await until(
            lambda: any("expired" in problem for problem in system.health.problems()),
            "it is on /healthz",
        )
        assert await served(system) == before
    with pytest.raises(SettingsError, match=r"SHASHIN_TLS_CERTIFICATE_FILE.*expired"):
        async with running_system(tmp_path, access=access, name=NAME, **front):
            pass


@pytest.mark.parametrize(
    "given", [{"tls_certificate_file"}, {"tls_key_file"}, {"tls_client_ca_file"}]
)
async def test_settings_that_belong_together_are_refused_alone(
    tmp_path: Path, certificates: Certificates, given: set[str]
) -> None:
    front = settings(certificates, mutual=True)
    with pytest.raises(ValueError, match="SHASHIN_TLS_"):
        async with running_system(tmp_path, **{name: front[name] for name in given}):
            pass


async def test_a_client_is_told_what_is_wrong_with_its_files(
    tmp_path: Path, certificates: Certificates
) -> None:
    missing = certificates.access().model_copy(update={"router_ca_file": tmp_path / "no.pem"})
    with pytest.raises(UserError, match="SHASHIN_ROUTER_CA_FILE"):
        RouterClient("grpcs://localhost:1", access=missing)
    for address in ("https://localhost:1", "user@host:1", "", "host 1"):
        with pytest.raises(UserError, match="grpcs://HOST:PORT"):
            RouterClient(address, access=RouterAccess())
    async with RouterClient("grpcs://localhost:1", access=certificates.access()) as client:
        with pytest.raises(NoEndpoint, match="is unavailable"):
            await client.status()
