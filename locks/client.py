"""Searches with the client as another team's service has it: ``shashin`` and locks/client.txt, nothing else.

Run as part of ``make locks-test``.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc

from locks.test import BUILDS, Failed, bare_environment, copy_code, install, run
from shashin.local.ports import HOST
from shashin.v1 import search_pb2, search_pb2_grpc

SEARCH = """
import asyncio, sys
from shashin.client import AsyncClient, Client, Filter

async def searched(address):
    async with AsyncClient(address) as shashin:
        return await shashin.search(photo=b"photo", filter=Filter(under="shoes"), timeout=60.0)

with Client(sys.argv[1]) as shashin:
    answer = shashin.search(photo=b"photo", filter=Filter(under="shoes"), timeout=60.0)
assert answer == asyncio.run(searched(sys.argv[1]))
assert [hit.listing_id for hit in answer.hits] == ["shoes"], answer
"""
"""Searches through the router in argv with both clients."""


class _Router(search_pb2_grpc.SearchServiceServicer):
    """Finds a listing that is named as the category that is searched."""

    def Search(self, request: Any, context: Any) -> search_pb2.SearchResponse:  # noqa: N802
        del context
        found = [search_pb2.Hit(listing_id=one) for one in request.filter.category_prefixes]
        return search_pb2.SearchResponse(hits=found)


@contextmanager
def running_router() -> Iterator[str]:
    """Serve; yields the address."""
    server = grpc.server(ThreadPoolExecutor(2))
    search_pb2_grpc.add_SearchServiceServicer_to_server(_Router(), server)
    port = server.add_insecure_port(f"{HOST}:0")
    server.start()
    try:
        yield f"{HOST}:{port}"
    finally:
        server.stop(None)


def main() -> None:
    """Search; exits with 1 if that fails."""
    with tempfile.TemporaryDirectory() as scratch, running_router() as address:
        folder = Path(scratch)
        try:
            packages = install("client", folder / "environment")
            copy_code(BUILDS, folder / "code")
            python = folder / "environment" / "bin" / "python"
            run(
                "searching",
                *(str(python), "-c", SEARCH, address),
                cwd=folder / "code",
                env=bare_environment(folder, {}),
            )
        except Failed as failure:
            print(f"client         FAILED  {failure}")
            sys.exit(1)
    print(f"client         ok  {packages} packages")


if __name__ == "__main__":
    main()
