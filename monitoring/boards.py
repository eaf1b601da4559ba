"""Every dashboard."""

from __future__ import annotations

from monitoring import overview_boards, service_boards
from monitoring.panels import Board, document

BOARDS: tuple[Board, ...] = (*overview_boards.BOARDS, *service_boards.BOARDS)


def dashboard_files() -> dict[str, str]:
    """Return the JSON of each dashboard by the name of its file."""
    return {
        f"{board.uid.removeprefix('shashin-')}.json": document(
            board, [other for other in overview_boards.BOARDS if other is not board]
        )
        for board in BOARDS
    }
