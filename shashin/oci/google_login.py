"""The login of a pod on Google Cloud at Google's registries: a token of its own service account.

Source: https://cloud.google.com/artifact-registry/docs/docker/authentication (access token) and
https://cloud.google.com/compute/docs/metadata/predefined-metadata-keys.
"""

from __future__ import annotations

import json
import os

import aiohttp

from shashin.errors import RegistryLoginRefused, RegistryUnavailable
from shashin.oci.credentials import Credentials

HOST_VARIABLE = "GCE_METADATA_HOST"
"""HOST:PORT of another metadata server, as Google's own libraries read it."""

USER = "oauth2accesstoken"

_HOST = "metadata.google.internal"
_PATH = "/computeMetadata/v1/instance/service-accounts/default/token"
_SECONDS = 5.0
_MAX_BYTES = 64 * 1024


async def google_credentials(session: aiohttp.ClientSession) -> Credentials:
    """Return what to log in with, valid for some minutes at least.

    Raises:
        RegistryUnavailable: when the metadata server does not respond.
        RegistryLoginRefused: when it gives no token, as to a pod without an account.
    """
    host = os.environ.get(HOST_VARIABLE) or _HOST
    try:
        async with session.get(
            f"http://{host}{_PATH}",
            headers={"Metadata-Flavor": "Google"},
            timeout=aiohttp.ClientTimeout(total=_SECONDS),
            allow_redirects=False,
        ) as response:
            data = await response.content.read(_MAX_BYTES)
            status = response.status
    except (aiohttp.ClientError, TimeoutError) as error:
        raise RegistryUnavailable(
            f"the metadata server of Google at {host} does not respond: "
            f"{str(error) or type(error).__name__}; SHASHIN_REGISTRY_GOOGLE is only for pods on Google "
            "Cloud"
        ) from error
    try:
        token = json.loads(data)["access_token"]
    except (ValueError, KeyError, TypeError):
        token = None
    if not isinstance(token, str) or not token:
        raise RegistryLoginRefused(
            f"the metadata server of Google at {host} gave no token (HTTP status {status}): annotate "
            "the pod's service account with iam.gke.io/gcp-service-account, and let that account push "
            "to the registry"
        )
    return Credentials(USER, token)
