"""When a server's certificate expires: by a handshake with oneself in memory, since nothing else of the
standard library tells what is in a certificate.
"""

from __future__ import annotations

import ssl
from contextlib import suppress
from pathlib import Path

from shashin.errors import UserError

_STEPS = 10
"""More than any handshake has."""
_NOT_YET_VALID, _EXPIRED = 9, 10
"""X509_V_ERR_CERT_NOT_YET_VALID and X509_V_ERR_CERT_HAS_EXPIRED of OpenSSL."""


def expiry_of(context: ssl.SSLContext, chain: Path) -> float | None:
    """Return when the certificate that a server's context uses expires, in Unix seconds; None if unknown.

    ``chain`` is the file that begins with it.

    Raises:
        UserError: if it has expired, or is not valid yet.
    """
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.check_hostname = False
    # The certificate itself is trusted: its authority need not be known.
    trusting.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        trusting.load_verify_locations(chain)
        found = _handshake(trusting, context)
    except ssl.SSLCertVerificationError as error:
        if error.verify_code in {_NOT_YET_VALID, _EXPIRED}:
            raise UserError(
                f"{chain} is not valid now ({error.verify_message}): renew it, or set the clock"
            ) from None
        return None
    except ssl.SSLError:
        return None
    after = (found or {}).get("notAfter")
    return float(ssl.cert_time_to_seconds(after)) if isinstance(after, str) else None


def _handshake(trusting: ssl.SSLContext, context: ssl.SSLContext) -> dict[str, object] | None:
    """Return what the client of a handshake is told about the server's certificate."""
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = trusting.wrap_bio(to_client, to_server)
    server = context.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(_STEPS):
        try:
            client.do_handshake()
        except ssl.SSLWantReadError:
            with suppress(ssl.SSLWantReadError):
                server.do_handshake()
        else:
            return dict(client.getpeercert() or {})
    return None
