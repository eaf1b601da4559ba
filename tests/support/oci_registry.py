"""A real registry of container images on the loopback: CNCF distribution."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import ssl
import subprocess
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import aiohttp
import pytest
import trustme
from aiohttp import web
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.x509 import load_pem_x509_certificate

from shashin.local.ports import HOST, free_port
from shashin.oci.access import RegistryAccess
from shashin.oci.credentials import DockerConfig, read_docker_config
from tests.support.waiting import until

BINARY_VARIABLE = "SHASHIN_TEST_REGISTRY_BINARY"
"""Path of the program ``registry`` of github.com/distribution/distribution/v3."""

needs_registry = pytest.mark.skipif(
    BINARY_VARIABLE not in os.environ,
    reason=f"{BINARY_VARIABLE} is not set to distribution's registry: go install "
    "github.com/distribution/distribution/v3/cmd/registry@v3.1.2",
)

USER = "pusher"
PASSWORD = "correct horse"
GOOGLE_TOKEN = "ya29.of-the-tests"

_HTPASSWD = (
    f"{USER}:$2b$05$abcdefghijklmnopqrstuuHNbAKRhpaujgo33bRWs.NLUTJO3lOy2\n"
    "oauth2accesstoken:$2b$05$EJkVZosicGwaPsFl6XNMeOyvUVNu0/MGgQ41k20iPeKgqB3EsG5SG\n"
)
"""The passwords with bcrypt."""

IDENTITY_TOKEN = "who the user is"

Auth = Literal["none", "basic", "token"]
_SERVICE = "registry of the tests"


@dataclass(frozen=True)
class Rights:
    """What the token server permits the user."""

    denied: frozenset[str] = frozenset()
    """``REPOSITORY:ACTION`` that no token permits."""


class RegistryServer:
    """One registry; its images are files in ``folder`` and survive a kill."""

    def __init__(self, folder: Path, *, tls: bool = False, auth: Auth = "none") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.tls = tls
        self.auth = auth
        self.storage = folder / "storage"
        self.port = free_port()
        self.address = f"{HOST}:{self.port}"
        self.tokens = TokenServer(folder) if auth == "token" else None
        self._authority = trustme.CA()
        self.ca_file = folder / "ca.pem"
        self._authority.cert_pem.write_to_path(self.ca_file)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> str:
        """What it has logged so far."""
        return (self.folder / "log").read_text(errors="replace")

    def access(
        self, *, address: str = "", password: str | None = PASSWORD, trusted: bool = True
    ) -> RegistryAccess:
        """Return how a client reaches it; without a password as nobody."""
        config = DockerConfig({}, {})
        if password is not None and self.auth != "none":
            config = read_docker_config(self.docker_config(address or self.address, password))
        plain = frozenset() if self.tls else frozenset({address or self.address})
        return RegistryAccess(config, self.ca_file if trusted else None, plain)

    def blob_path(self, digest: str) -> Path:
        """Return the file that has a blob's bytes."""
        name = digest.removeprefix("sha256:")
        return self.storage / "docker/registry/v2/blobs/sha256" / name[:2] / name / "data"

    def docker_config(self, address: str, password: str = PASSWORD) -> Path:
        """Write a folder with a ``config.json`` for the registry, and return it."""
        folder = self.folder / f"docker-{uuid.uuid4().hex[:8]}"
        folder.mkdir()
        auth = base64.b64encode(f"{USER}:{password}".encode()).decode()
        document = {"auths": {address: {"auth": auth}}}
        (folder / "config.json").write_text(json.dumps(document))
        return folder

    def _configuration(self) -> dict[str, Any]:
        http: dict[str, Any] = {"addr": self.address, "secret": "of the tests"}
        if self.tls:
            certificate = self._authority.issue_cert(HOST)
            key, chain = self.folder / "key.pem", self.folder / "chain.pem"
            certificate.private_key_pem.write_to_path(key)
            chain.write_bytes(b"".join(pem.bytes() for pem in certificate.cert_chain_pems))
            http["tls"] = {"certificate": str(chain), "key": str(key)}
        auth: dict[str, Any] = {}
        if self.auth == "basic":
            users = self.folder / "htpasswd"
            users.write_text(_HTPASSWD)
            auth = {"auth": {"htpasswd": {"realm": "tests", "path": str(users)}}}
        elif self.tokens is not None:
            auth = {
                "auth": {
                    "token": {
                        "realm": self.tokens.url,
                        "service": _SERVICE,
                        "issuer": "tests",
                        "rootcertbundle": str(self.tokens.bundle),
                    }
                }
            }
        return {
            "version": "0.1",
            "log": {"level": "info"},
            "storage": {
                "filesystem": {"rootdirectory": str(self.storage)},
                "delete": {"enabled": True},
            },
            "http": http,
            **auth,
        }

    async def start(self) -> None:
        """Start it and wait until it answers; can be called again after a kill."""
        if self.tokens is not None:
            await self.tokens.start()
        configuration = self.folder / "config.yml"
        configuration.write_text(json.dumps(self._configuration()))  # JSON is YAML
        with (self.folder / "log").open("ab") as log:
            process = subprocess.Popen(  # noqa: ASYNC220
                [os.environ[BINARY_VARIABLE], "serve", str(configuration)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "OTEL_TRACES_EXPORTER": "none"},
            )
        self._process = process
        scheme = "https" if self.tls else "http"

        async def answers() -> bool:
            assert process.poll() is None, f"the registry ended:\n{self.log[-5000:]}"
            try:
                async with session.get(f"{scheme}://{self.address}/v2/") as response:
                    return response.status in {200, 401}
            except aiohttp.ClientError:
                return False

        context = ssl.create_default_context(cafile=str(self.ca_file))
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as session:
            await until(answers, "the registry answers")

    async def kill(self) -> None:
        """Kill it with SIGKILL."""
        if self._process is not None:
            self._process.kill()
            await asyncio.to_thread(self._process.wait)
            self._process = None

    async def close(self) -> None:
        """Kill it, and stop its token server."""
        await self.kill()
        if self.tokens is not None:
            await self.tokens.stop()


class TokenServer:
    """Gives tokens to one user, as the token servers of large registries do."""

    def __init__(self, folder: Path) -> None:
        authority = trustme.CA(key_type=trustme.KeyType.ECDSA)
        self._certificate = authority.issue_cert("tests", key_type=trustme.KeyType.ECDSA)
        self.bundle = folder / "token-authority.pem"
        authority.cert_pem.write_to_path(self.bundle)
        self.rights = Rights()
        self.lifetime_seconds = 300
        self.given: list[list[str]] = []
        """The scopes of each token."""
        self._runner: web.AppRunner | None = None
        self.port = free_port()
        self.url = f"http://{HOST}:{self.port}/token"

    async def start(self) -> None:
        """Start it, unless it runs."""
        if self._runner is not None:
            return
        app = web.Application()
        app.router.add_get("/token", self._token)
        app.router.add_post("/token", self._exchanged)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, HOST, self.port).start()

    async def stop(self) -> None:
        """Stop it."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _exchanged(self, request: web.Request) -> web.Response:
        """Give a token for an identity token (OAuth 2)."""
        form = await request.post()
        if (form.get("grant_type"), form.get("refresh_token")) != ("refresh_token", IDENTITY_TOKEN):
            return web.json_response({"errors": [{"code": "UNAUTHORIZED"}]}, status=401)
        scopes = str(form["scope"]).split()
        return web.json_response({"access_token": self.token(scopes)})

    async def _token(self, request: web.Request) -> web.Response:
        login = f"Basic {base64.b64encode(f'{USER}:{PASSWORD}'.encode()).decode()}"
        if request.headers.get("Authorization") != login:
            return web.json_response({"errors": [{"code": "UNAUTHORIZED"}]}, status=401)
        return web.json_response({"token": self.token(request.query.getall("scope", []))})

    def token(self, scopes: list[str]) -> str:
        """Return a token that permits what the scopes name, as far as the user has the right."""
        self.given.append(scopes)
        entries = []
        for scope in scopes:
            kind, name, actions = scope.split(":")
            permitted = [
                action
                for action in actions.split(",")
                if f"{name}:{action}" not in self.rights.denied
            ]
            entries.append({"type": kind, "name": name, "actions": permitted})
        return self._signed(entries)

    def _signed(self, entries: list[dict[str, Any]]) -> str:
        pem = self._certificate.cert_chain_pems[0].bytes()
        der = load_pem_x509_certificate(pem).public_bytes(serialization.Encoding.DER)
        header = {"typ": "JWT", "alg": "ES256", "x5c": [base64.b64encode(der).decode()]}
        now = int(time.time())
        claims = {
            "iss": "tests",
            "sub": USER,
            "aud": _SERVICE,
            "exp": now + self.lifetime_seconds,
            "nbf": now - 10,
            "iat": now,
            "jti": uuid.uuid4().hex,
            "access": entries,
        }
        signed = f"{_encoded(header)}.{_encoded(claims)}"
        key = serialization.load_pem_private_key(
            self._certificate.private_key_pem.bytes(), password=None
        )
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        signature = key.sign(signed.encode(), ec.ECDSA(hashes.SHA256()))
        raw = b"".join(n.to_bytes(32, "big") for n in utils.decode_dss_signature(signature))
        return f"{signed}.{base64.urlsafe_b64encode(raw).decode().rstrip('=')}"


def _encoded(document: dict[str, Any]) -> str:
    data = json.dumps(document).encode()
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
