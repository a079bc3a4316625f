"""Long work says how far it is: in lines of the step's log, wherever the output is no terminal."""

import logging
import os
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from stella_assets.core import progress
from stella_assets.core.progress import Pace, duration, money, progress_bar, progress_in
from tests.conftest import TINY, write_recipe

LINE = re.compile(r"minilm: ([\d,]+) of ([\d,]+) texts, [\d,.]+ texts/s, [\dhmins ]+ left")


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> logging.Logger:
    """A log, and a line after every step of the work."""
    monkeypatch.setattr(progress, "EVERY", 0.0)
    monkeypatch.setattr(progress, "AT_MOST", 0.0)
    caplog.set_level("INFO")
    return logging.getLogger("progress")


def test_a_line_has_what_was_done_its_rate_and_the_time_left(at_once: logging.Logger, caplog):
    with progress_in(at_once), progress_bar(2048, "minilm", "texts") as bar:
        bar.update(512)
        bar.update(512)
    assert [LINE.fullmatch(message).groups() for message in caplog.messages] == [("512", "2,048"), ("1,024", "2,048")]


def test_work_of_unknown_size_has_no_time_left(at_once: logging.Logger, caplog):
    with progress_in(at_once), progress_bar(0, "cleaned_texts", "texts") as bar:
        bar.update(1000)
    assert re.fullmatch(r"cleaned_texts: 1,000 texts, [\d,]+ texts/s", caplog.messages[0])


def test_a_part_of_the_work_moves_the_count_of_the_whole(at_once: logging.Logger, caplog):
    """Units of texts: what a worker of this process counts within a unit is not counted again when the unit is done."""
    with progress_in(at_once), progress_bar(6, "minilm", "texts") as whole:
        for unit in (1, 2):
            with progress_bar(3, "minilm", "texts") as part:
                part.update(2)
                part.update(1)
            whole.reach(3 * unit)
    counts = [LINE.fullmatch(message).group(1) for message in caplog.messages]
    assert list(dict.fromkeys(counts)) == ["2", "3", "5", "6"]


def test_what_a_part_says_of_itself_ends_the_lines_of_the_whole(at_once: logging.Logger, caplog):
    with progress_in(at_once), progress_bar(6, "far", "texts") as whole, progress_bar(3, "far", "texts") as part:
        part.note("120 tokens, $0.0002 in all")
        part.update(2)
        whole.reach(3)
    assert [message.rpartition(" left, ")[2] for message in caplog.messages] == ["120 tokens, $0.0002 in all"] * 2


def test_lines_come_at_most_every_ten_seconds_and_more_seldom_in_work_of_hours(monkeypatch: pytest.MonkeyPatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    pace, said = Pace(), []
    for second in range(3 * 3600):
        now[0] = float(second)
        if pace.due():
            said.append(second)
    assert said[:4] == [10, 20, 30, 40]
    assert min(after - before for before, after in pairwise(said)) == 10
    assert said[-1] - said[-2] == 60


def test_counts_within_one_another_share_their_pace(at_once: logging.Logger, caplog, monkeypatch):
    monkeypatch.setattr(progress, "EVERY", 1000.0)
    monkeypatch.setattr(progress, "AT_MOST", 1000.0)
    with progress_in(at_once), progress_bar(2, "scores", "tasks") as tasks:
        tasks._pace._next = 0.0
        with progress_bar(9, "student", "texts") as texts:
            texts.update(3)
            texts.update(3)
        tasks.update()
    assert len(caplog.messages) == 1


def test_nothing_is_said_where_nobody_listens_and_of_work_that_speaks_for_itself(at_once: logging.Logger, caplog):
    with progress_bar(2, "a", "texts") as bar:
        bar.update()
    with progress_in(at_once), progress_bar(2, "a", "steps", lines=False) as bar:
        bar.update()
    assert not caplog.messages


def test_less_than_a_cent_is_not_shown_as_nothing():
    assert [money(dollars) for dollars in (0, 0.0036, 0.1493, 1, 1234.5)] == [
        "0.00",
        "0.0036",
        "0.1493",
        "1.00",
        "1,234.50",
    ]


def test_durations_are_in_words():
    assert [duration(seconds) for seconds in (4, 65, 7500)] == ["4 s", "1 min 5 s", "2 h 5 min"]


RUN = (
    "from stella_assets.core import progress; progress.EVERY = 0.02; "
    "from stella_assets.pipelines.cli import main; main()"
)


@pytest.mark.slow
def test_a_run_whose_output_is_a_pipe_shows_how_far_a_teacher_is(tmp_path: Path):
    raw = {**TINY, "teachers": [{**TINY["teachers"][0], "unit_rows": 200}], "release": {**TINY["release"]}}
    recipe = write_recipe(tmp_path, yaml.safe_load(yaml.safe_dump(raw)))
    command = [sys.executable, "-c", RUN, "run", str(recipe), "--select", "teacher_vectors/minilm"]
    done = subprocess.run(
        command, env={**os.environ, "STELLA_HOME": str(tmp_path / "home")}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    encoding, _measuring = done.stderr.split(" texts encoded")
    lines = [tuple(int(each.replace(",", "")) for each in found) for found in LINE.findall(encoding)]
    assert len(lines) >= 3
    assert lines == sorted(lines)
    assert {f"{total:,}" for _, total in lines} == {encoding.split()[-1]}
    assert "\r" not in done.stderr
