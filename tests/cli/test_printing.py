"""What is printed is data: no style, no link, no character that a terminal obeys, wherever a string occurs."""

import io
import json
import logging
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.tree import Tree

from stella_assets.pipelines.cli.console import make_table
from stella_assets.pipelines.cli.printing import DataConsole, PeopleHandler, err, note, out, print_json, say, styled

HOSTILE = {
    "a style": "[bold]loud[/bold]",
    "a closing tag of no style": "[/x]",
    "brackets": "see [1] and list[int]",
    "a link of Rich": "[link=https://example.org]here[/link]",
    "the name of a picture": ":warning: text",
    "a colour": "\x1b[31mred",
    "an eight-bit colour": "\x9b31mred",
    "a link of the terminal": "\x1b]8;;https://example.org\x07here\x1b]8;;\x07",
    "a title of the window": "\x1b]0;owned\x07",
    "a return to the start": "failed\rpassed",
    "backspaces": "bad\b\b\bgood",
    "another direction": "abc\u202edef\u2066ghi",
    "an invisible space": "a\u200bb\ufeff",
    "another line": "a\u2028b\u2029c\x85d",
    "invisible letters": "a\U000e0041b",
    "half a surrogate": "a\udc80b",
    "null": "a\x00b",
}
# Line feed is the only control character that Rich writes to what is not a terminal.
OBEYED = re.compile("[^\n\x20-\x7e\xa0-\u061b\u061d-\u200a\u2010-\u2027\u2030-\u205f\u2070-\ud7ff\ue000-\ufefe]")


def a_line(text: str) -> None:
    say(text)


def a_styled_line(text: str) -> None:
    note((text, "bold red"), f": {text}")


def a_cell(text: str) -> None:
    out.print(make_table([{"text": text, "other": styled((text, "green"))}], "Texts"))


def a_header_and_a_title(text: str) -> None:
    out.print(make_table([{text: 1}], text))


def an_empty_table(text: str) -> None:
    out.print(make_table([], text))


def a_branch(text: str) -> None:
    tree = Tree(text)
    tree.add(text)
    out.print(tree)


def a_log_line(text: str) -> None:
    log = logging.Logger("test")
    log.addHandler(PeopleHandler())
    log.warning(text)
    log.warning("%s", text)


def a_line_with_markup_turned_on(text: str) -> None:
    out.print(text, markup=True, emoji=True, highlight=True)


PLACES: list[Callable[[str], None]] = [
    a_line, a_styled_line, a_cell, a_header_and_a_title, an_empty_table, a_branch, a_log_line,
    a_line_with_markup_turned_on,
]  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", HOSTILE)
def test_a_string_is_printed_whole_and_no_terminal_obeys_it(
    place: Callable[[str], None], kind: str, capsys: pytest.CaptureFixture[str]
):
    text = HOSTILE[kind]
    place(text)
    printed = "".join(capsys.readouterr())
    expected = text.encode("unicode_escape").decode()  # also what is seen of a text without control characters
    assert expected in printed
    assert not OBEYED.search(printed)


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_terminal_gets_the_styles_of_the_command_and_none_of_the_data(kind: str):
    terminal = io.StringIO()
    console = DataConsole(file=terminal, force_terminal=True, color_system="standard", width=200)
    console.print(make_table([{"text": HOSTILE[kind], "state": styled(("exists", "green"))}], "T"))
    codes = set(re.findall("\x1b[^m]*m", terminal.getvalue()))
    assert codes == {"\x1b[1m", "\x1b[0m", "\x1b[3m", "\x1b[32m"}  # header, end, title, state
    assert not OBEYED.search(terminal.getvalue().replace("\x1b", ""))


def test_text_that_people_write_is_printed_as_it_is(capsys: pytest.CaptureFixture[str]):
    written = "naïve café, 日本語, עברית, العربية, क्‍ष, 👩‍🔬, and a\nnext line"
    say(written)
    assert capsys.readouterr().out == written + "\n"


@pytest.mark.parametrize("kind", HOSTILE)
def test_json_keeps_the_data_and_escapes_what_a_terminal_would_obey(kind: str, capsys: pytest.CaptureFixture[str]):
    value = {HOSTILE[kind]: [HOSTILE[kind], {"nested": HOSTILE[kind]}]}
    print_json(value)
    printed = capsys.readouterr().out
    assert json.loads(printed) == value
    assert not OBEYED.search(printed)


def test_json_has_no_nan_and_no_infinity(capsys: pytest.CaptureFixture[str]):
    print_json({"a": float("nan"), "b": [float("inf"), -float("inf"), 1.5], "c": Path("x")})
    assert json.loads(capsys.readouterr().out, parse_constant=pytest.fail) == {
        "a": None,
        "b": [None, None, 1.5],
        "c": "x",
    }


def test_both_consoles_take_strings_as_data():
    assert isinstance(out, DataConsole)
    assert isinstance(err, DataConsole)


def test_no_command_writes_to_the_terminal_by_another_way():
    """Every line goes through `printing`, which is the only file that names `print` or a console of Rich."""
    folder = Path(__file__).parents[2] / "pipelines"
    others = re.compile(
        r"^\s*print\(|[^_.\w]print\(|Console\(|RichHandler\(|typer\.echo|click\.echo|std(out|err)\.write"
    )
    found = [
        f"{path.name}: {line.strip()}"
        for path in sorted(folder.rglob("*.py"))
        if path.name != "printing.py"
        for line in path.read_text(encoding="utf-8").splitlines()
        if others.search(line)
    ]
    assert found == []
