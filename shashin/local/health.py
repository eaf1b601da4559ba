"""What ready processes say is wrong with them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from shashin.local.probe import probe
from shashin.local.processes import ProcessRow


async def with_problems(rows: Sequence[ProcessRow]) -> list[ProcessRow]:
    """Return the rows with the problems that /healthz of each ready process reports."""
    return list(await asyncio.gather(*map(_with_problems, rows)))


async def _with_problems(row: ProcessRow) -> ProcessRow:
    address = row.addresses.get("http")
    if not row.well or row.pid is None or address is None:
        return row
    return replace(row, problems=await probe(f"http://{address}/healthz", row.pid) or "")
