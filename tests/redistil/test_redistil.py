"""Some weeks in the life of a recipe: what is new is embedded once, and what is served never gets worse."""

import json
import shutil
import subprocess
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest
from storage.workspace import Workspace

from stella_assets.core.step import Runner
from stella_assets.core.trace import Tracer
from stella_assets.recipe import Recipe, RecipeError
from stella_assets.redistil.ledger import Entry, Ledger
from stella_assets.redistil.redistil import redistil
from storage.database import open_table, table_names
from storage.releases import Releases
from storage.statistics import refresh_views
from storage.vectors import PREFIX
from tests.redistil.weeks import WORSE, Weeks


def done_by_two_daemons(weeks: Weeks) -> list[Entry]:
    """Two processes that begin at once: one waits for the other."""
    daemons = [weeks.start(subprocess.PIPE) for _ in range(2)]
    said = [daemon.communicate()[0] for daemon in daemons]
    assert [daemon.returncode for daemon in daemons] == [0, 0], said
    assert "another process is re-distilling this recipe; waiting for it." in " ".join("".join(said).split())
    return Ledger(weeks.workspace, "weekly").entries()


def test_weeks_go_by(tmp_path: Path):
    weeks = Weeks(tmp_path, steps=12)
    releases = Releases(weeks.workspace, "weekly")

    weeks.add(0, 300)
    first, again = done_by_two_daemons(weeks)
    assert first.verdict == "promoted"
    assert first.new_texts == first.embedded > 290  # a few are equal when they are normalised
    assert releases.names() == [first.release]
    assert (again.verdict, again.embedded, again.release) == ("nothing new", 0, first.release)

    # From here on the clock is wrong: it is January again.
    force = weeks.redistil(1, force=True)
    assert (force.verdict, force.why, releases.names()) == (
        "nothing new",
        "what comes of it is what is served",
        [first.release],
    )

    weeks.add(2, 2)
    little = weeks.redistil(2)
    assert (little.verdict, little.new_texts, little.embedded) == ("too little new", 2, 2)
    assert "2 new texts, 0.6" in little.why

    bad = weeks.add_bad_file(3)
    failed = weeks.redistil(3)
    assert (failed.verdict, failed.release) == ("failed", first.release)
    assert "week_03.jsonl" in failed.why
    bad.unlink()

    weeks.add(4, 60)
    weeks.kill()
    assert releases.names() == [first.release]
    grown = weeks.redistil(4)
    assert grown.new_texts == 62
    texts = first.new_texts + grown.new_texts
    assert grown.embedded == 0  # the killed one had embedded them
    assert grown.verdict in ("promoted", "rejected")
    assert releases.current() == grown.release
    stage = weeks.workspace.current("weekly", "stage_2").resolve()
    assert json.loads((stage / "manifest.json").read_text())["metrics"]["resumed_at_step"] >= 4
    begun = Tracer(weeks.workspace).find("weekly/stage_1").sources["start"]
    assert begun == Tracer(weeks.workspace).find(f"weekly@{first.release}").all["stage_2"].digest

    weeks.teacher(WORSE)
    worse = weeks.redistil(5)
    assert (worse.verdict, worse.release) == ("rejected", grown.release), worse.why
    assert "the gate is closed: max_task_regression, HeldOutRetrieval" in worse.why
    assert worse.embedded == texts  # with another teacher
    assert pq.read_metadata(weeks.workspace.current("weekly", "corpus") / "corpus.parquet").num_rows == texts
    (rows,) = {
        open_table(weeks.workspace, name).count_rows()
        for name in table_names(weeks.workspace)
        if name.startswith(PREFIX)
    }
    assert rows >= texts
    links = [link for link in (weeks.workspace.root / "weekly").rglob("*") if link.is_symlink()]
    assert all((link / "manifest.json").is_file() for link in links)  # what it has is not let go, gate or no gate
    weeks.teacher(32)
    shutil.rmtree(releases.folder(str(grown.release)))
    lost = weeks.redistil(6)
    assert lost.verdict == "failed"
    assert f"the files of release '{grown.release}' are gone. Run `stella release rollback weekly`" in lost.why

    rows = _rows(weeks.workspace)
    assert [row[0] for row in rows] == [
        "promoted",
        "nothing new",
        "nothing new",
        "too little new",
        "failed",
        grown.verdict,
        "rejected",
        "failed",
    ]
    assert sum(row[1] for row in rows) == first.embedded + 2 + texts


def _rows(workspace: Workspace) -> list[tuple[str, int]]:
    """In the order of the ledger, as the clock was wrong."""
    with duckdb.connect(str(refresh_views(workspace)), read_only=True) as connection:
        return connection.execute("SELECT verdict, embedded FROM redistillations").fetchall()


def test_a_recipe_that_does_not_ask_for_it_is_told_how(tiny: Recipe, workspace: Workspace, log):
    with pytest.raises(RecipeError, match="Add `redistil: true`"):
        redistil(tiny, Runner(workspace, log))
