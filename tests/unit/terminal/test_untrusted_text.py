"""Text from outside on a terminal: never markup, never a control sequence, never a line of its own."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shashin.printable import printable
from shashin.terminal import console
from shashin.terminal.console import echo, echo_error, echo_table
from tests.unit.terminal.test_bars import on_a_terminal

HOSTILE = "\x1b]0;title\x07\x1b[2Jid\u202e\x9b31m"
ESCAPED = r"\x1b]0;title\x07\x1b[2Jid\u202e\x9b31m"

PRINTERS: dict[str, Callable[[str], None]] = {
    "a result": echo,
    "an error": echo_error,
    "a cell": lambda text: echo_table(["listing"], [(text,)]),
    "a cell of two lines": lambda text: echo_table(["listing"], [((text, "v1"),)]),
    "the name of a column": lambda text: echo_table(["", text], [("a", "b")]),
}


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "_LOG_WIDTH", 400)


def printed(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    return captured.out + captured.err


@pytest.mark.parametrize("where", PRINTERS)
@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (HOSTILE, ESCAPED),
        ("[red]sofa[/red]", "[red]sofa[/red]"),
        ("back\\[slash]", "back\\[slash]"),
        (":heart: [link=http://a]b[/link]", ":heart: [link=http://a]b[/link]"),
        ("lamp\n0 listings sold", r"lamp\n0 listings sold"),
        ("caf\udce9", r"caf\udce9"),
        ("日本語の椅子　大", "日本語の椅子　大"),
        ("🏳️‍🌈", "🏳️‍🌈"),
    ],
)
def test_text_from_outside_is_shown_as_it_is_but_for_what_controls_a_terminal(
    capsys: pytest.CaptureFixture[str], where: str, text: str, shown: str
) -> None:
    PRINTERS[where](text)
    assert shown in printed(capsys)


def test_a_quoted_log_keeps_its_lines_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    echo_error(f"it died; the last lines:\n  | first {HOSTILE}\n  | second\nthird")
    assert printed(capsys).splitlines() == [
        "error: it died; the last lines:",
        f"  | first {ESCAPED}",
        r"  | second\nthird",
    ]


@given(st.text(max_size=40))
def test_no_text_leaves_a_character_that_controls_a_terminal(text: str) -> None:
    shown = printable(text)
    assert not any(c in shown for c in map(chr, [*range(32), *range(127, 160), 0x2028, 0x2029]))
    assert printable(shown) == shown
    shown.encode()


def test_what_a_stage_waits_for_is_escaped_on_a_terminal() -> None:
    program = f"""
from shashin.terminal.console import Stages
with Stages() as stages:
    stages.set("services ready", 5, 6, note={HOSTILE!r})
"""
    assert any(r"\x1b]0;title\x07" in line for line in on_a_terminal(program, kind="xterm"))


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_a_log_line_escapes_what_a_record_contains(log_format: str) -> None:
    program = f"""
from shashin.runtime.logging import configure_logging, get_logger
configure_logging("downloader", level="info", log_format={log_format!r})
get_logger("tests").warning("dead letter", listing="\x1b[2Jlamp", error={HOSTILE!r} + "\\nfaked")
"""
    (line,) = on_a_terminal(program, kind="xterm")
    assert "lamp" in line
    assert "faked" in line
    assert not {"\x1b", "\x07", "\x9b"} & set(line)
