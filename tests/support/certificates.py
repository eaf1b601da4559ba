"""Certificates of a test's own authority, in files as a router and its clients have them."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import trustme

from shashin.rpc.router_access import RouterAccess

NAME = "localhost"


class Certificates:
    """A folder with the certificates of one authority."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._authority = trustme.CA()
        self.authority = folder / "ca.pem"
        self._authority.cert_pem.write_to_path(str(self.authority))

    def issue(self, name: str, *, until: datetime | None = None) -> tuple[Path, Path]:
        """Write a new certificate, valid until a time, and its key; returns their paths."""
        made = self._authority.issue_cert(NAME, "127.0.0.1", common_name=name, not_after=until)
        chain, key = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        replace(chain, b"".join(part.bytes() for part in made.cert_chain_pems))
        replace(key, made.private_key_pem.bytes())
        return chain, key

    def access(self, name: str = "", **more: object) -> RouterAccess:
        """Return the access of a client that trusts the authority, with a certificate if it has a name."""
        chain, key = self.issue(name) if name else (None, None)
        return RouterAccess.model_validate(
            {
                "router_ca_file": self.authority,
                "router_certificate_file": chain,
                "router_key_file": key,
                **more,
            }
        )


def replace(path: Path, data: bytes) -> None:
    """Replace a file at once."""
    new = path.with_name(f".{path.name}.new")
    new.write_bytes(data)
    new.replace(path)
