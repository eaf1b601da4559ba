"""Files, of JSON mostly, that are replaced atomically, so that readers never see a partial one."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def write_json(path: Path, document: Any) -> None:
    """Replace a JSON file atomically; creates its folder if necessary.

    Raises:
        OSError: when it cannot be written; the file is then as it was.
    """
    replace_file(path, (json.dumps(document, indent=1) + "\n").encode())


def replace_file(path: Path, data: bytes) -> None:
    """Replace a file atomically; creates its folder if necessary.

    Raises:
        OSError: when it cannot be written; the file is then as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_bytes(data)
        beside.replace(path)
    except BaseException:
        # Of a full disk, the part that was written would take space as well.
        beside.unlink(missing_ok=True)
        raise


def read_json(path: Path) -> Any:
    """Return the content of a JSON file; None if it does not exist or is not valid JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
