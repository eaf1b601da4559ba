"""What a command proves itself with to a router: options and environment."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from typer.testing import CliRunner, Result

from shashin.cli.app import app
from shashin.client.router import RouterClient
from shashin.errors import SettingsError, UserError
from shashin.rpc.router_access import RouterAccess
from shashin.rpc.router_address import check_router_address
from shashin.runtime.settings import load_settings
from shashin.v1 import search_pb2, search_pb2_grpc
from tests.support.certificates import NAME, Certificates
from tests.support.certificates import replace as replace_file


@dataclass
class Router(search_pb2_grpc.SearchServiceServicer):
    """A router with TLS that asks for certificates, and notes which keys it is sent."""

    address: str = ""
    keys: list[str | bytes] = field(default_factory=list)

    def Status(self, request: Any, context: Any) -> search_pb2.StatusResponse:  # noqa: N802
        self.keys += [v for name, v in context.invocation_metadata() if name == "authorization"]
        return search_pb2.StatusResponse(coverage=search_pb2.Coverage(complete=True))

    def _unused(self, request: Any, context: Any) -> Any:
        context.abort(grpc.StatusCode.UNIMPLEMENTED, "no test calls it")

    Search = Locate = _unused


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    return Certificates(tmp_path / "certificates")


@pytest.fixture
def router(certificates: Certificates) -> Iterator[Router]:
    chain, key = certificates.issue("router")
    credentials = grpc.ssl_server_credentials(
        [(key.read_bytes(), chain.read_bytes())], certificates.authority.read_bytes(), True
    )
    server = grpc.server(ThreadPoolExecutor(2))
    found = Router()
    search_pb2_grpc.add_SearchServiceServicer_to_server(found, server)
    found.address = f"grpcs://{NAME}:{server.add_secure_port('127.0.0.1:0', credentials)}"
    server.start()
    yield found
    server.stop(None)


def coverage(router: Router, *options: object, **environment: str) -> Result:
    arguments = ["coverage", "--json", "--router", router.address, *map(str, options)]
    return CliRunner().invoke(app, arguments, env=environment)


def test_options_have_the_certificates_and_the_key(
    router: Router, certificates: Certificates, tmp_path: Path
) -> None:
    chain, key = certificates.issue("client")
    file = tmp_path / "key"
    replace_file(file, b"the-key\n")
    options = ("--router-ca", certificates.authority, "--router-certificate", chain)
    answered = coverage(router, *options, "--router-key", key, "--api-key-file", file)
    assert answered.exit_code == 0, answered.output
    assert router.keys == ["Bearer the-key"]


def test_so_has_the_environment_and_options_come_first(
    router: Router, certificates: Certificates, tmp_path: Path
) -> None:
    chain, key = certificates.issue("client")
    environment = {
        "SHASHIN_ROUTER_CA_FILE": str(certificates.authority),
        "SHASHIN_ROUTER_CERTIFICATE_FILE": str(chain),
        "SHASHIN_ROUTER_KEY_FILE": str(key),
        "SHASHIN_API_KEY": "one",
    }
    assert coverage(router, **environment).exit_code == 0
    file = tmp_path / "key"
    replace_file(file, b"two")
    assert coverage(router, "--api-key-file", file, **environment).exit_code == 0
    assert router.keys == ["Bearer one", "Bearer two"]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (("--router-ca", "/nowhere.pem"), "SHASHIN_ROUTER_CA_FILE"),
        (("--router-key", "/nowhere.key"), "belong together"),
        (("--api-key-file", "/nowhere"), "SHASHIN_API_KEY_FILE"),
    ],
)
def test_a_wrong_file_is_named_in_one_line(
    router: Router, options: tuple[str, ...], problem: str
) -> None:
    refused = coverage(router, *options)
    assert refused.exit_code == 2
    assert problem in " ".join(refused.output.split())


async def test_a_key_that_is_renewed_in_its_file_is_sent_from_then_on(
    router: Router, certificates: Certificates, tmp_path: Path
) -> None:
    file = tmp_path / "key"
    replace_file(file, b"one")
    access = certificates.access("client", api_key_file=file)
    async with RouterClient(router.address, access=access) as client:
        await client.status()
        replace_file(file, b"two")
        await client.status()
        file.unlink()
        await client.status()
    assert router.keys == ["Bearer one", "Bearer two", "Bearer two"]


def test_a_key_is_in_no_message_about_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHASHIN_API_KEY", "the-secret-key")
    monkeypatch.setenv("SHASHIN_API_KEY_FILE", "/nowhere")
    with pytest.raises(SettingsError, match="not both") as refused:
        load_settings(RouterAccess)
    assert "the-secret-key" not in refused.value.message
    monkeypatch.delenv("SHASHIN_API_KEY_FILE")
    assert "the-secret-key" not in repr(load_settings(RouterAccess))


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1:50051",
        "[::1]:50051",
        "router",
        "dns:///router-pods.shashin:50051",
        "dns://1.1.1.1/router-pods:50051",
        "unix:/run/router",
        "ipv4:127.0.0.1:1,127.0.0.1:2",
        "grpc://router:50051",
        "grpcs://router:50051",
    ],
)
def test_an_address_of_grpc_or_one_with_a_scheme_of_its_own_is_taken(address: str) -> None:
    check_router_address(address)


@pytest.mark.parametrize(
    "address",
    ["", "https://router:1", "http://router", "grpcs://", "grpcs://a b:1", "grpcs://u@h:1"],
)
def test_any_other_address_is_refused_with_what_is_expected(address: str) -> None:
    with pytest.raises(UserError, match="grpcs://HOST:PORT"):
        check_router_address(address)
