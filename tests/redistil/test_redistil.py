"""Some weeks of re-distillation: new texts are embedded once, and the active release never gets worse."""

import json
import shutil
import time
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest

from stella_assets.core.runner import Runner
from stella_assets.core.trace import Tracer
from stella_assets.pipelines.views import refresh_views
from stella_assets.recipe import Graph, Recipe, Redistil
from stella_assets.redistil.attempt import Attempt
from stella_assets.redistil.ledger import Entry, Ledger
from stella_assets.redistil.redistil import NotRedistilledError, make_in_process, redistil
from stella_assets.storage.database import open_table, table_names
from stella_assets.storage.locks import file_lock
from stella_assets.storage.releases import Releases
from stella_assets.storage.workspace import Workspace
from stella_assets.teachers.tables import VECTORS
from tests.redistil.weeks import WORSE, Weeks


def done_by_two_daemons(weeks: Weeks) -> list[Entry]:
    """Two processes that meet: both wait for the lock; then one does the work, and the other finds nothing new."""
    outputs = [weeks.root / f"daemon_{number}" for number in range(2)]
    with file_lock(weeks.workspace, "redistil-weekly", lambda: None):
        daemons = [weeks.start(output) for output in outputs]
        deadline = time.monotonic() + 600
        while not all("another process is re-distilling this recipe; waiting for it." in said(o) for o in outputs):
            assert [daemon.poll() for daemon in daemons] == [None, None], [said(output) for output in outputs]
            assert time.monotonic() < deadline
            time.sleep(0.05)
    assert [daemon.wait() for daemon in daemons] == [0, 0], [said(output) for output in outputs]
    return Ledger(weeks.workspace, "weekly").entries()


def said(output: Path) -> str:
    """What a process has written, without the line breaks of the console."""
    return " ".join(output.read_text().split())


@pytest.mark.slow
def test_the_first_student_is_promoted_and_a_week_without_news_costs_nothing(tmp_path: Path):
    weeks = Weeks(tmp_path, steps=3)
    weeks.add(0, 120)
    first = weeks.redistil(0)
    assert (first.verdict, first.new_texts) == ("promoted", first.embedded), first.why
    again = weeks.redistil(1)
    assert (again.verdict, again.embedded, again.release) == ("nothing new", 0, first.release)
    assert Releases(weeks.workspace, "weekly").active() == first.release


@pytest.mark.slow
def test_the_active_release_is_never_worse_whatever_a_week_brings(tmp_path: Path):
    weeks = Weeks(tmp_path, steps=12)
    releases = Releases(weeks.workspace, "weekly")

    weeks.add(0, 300)
    first, again = done_by_two_daemons(weeks)
    assert first.verdict == "promoted"
    assert first.new_texts == first.embedded > 290  # a few are equal after normalisation
    assert releases.names() == [first.release]
    assert (again.verdict, again.embedded, again.release) == ("nothing new", 0, first.release)

    # From here on the clock is wrong: it is January again.
    force = weeks.redistil(1, force=True)
    assert (force.verdict, force.why, releases.names()) == (
        "nothing new",
        "the result is the active release",
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
    assert releases.active() == grown.release
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
        if name.startswith(VECTORS)
    }
    assert rows >= texts
    links = [link for link in (weeks.workspace.root / "weekly").rglob("*") if link.is_symlink()]
    # What the recipe has is not removed, even when the gate is closed.
    assert all((link / "manifest.json").is_file() for link in links)
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
    refresh_views(workspace)
    with duckdb.connect(str(workspace.statistics), read_only=True) as connection:
        return connection.execute("SELECT verdict, embedded FROM redistillations").fetchall()


def test_a_recipe_without_the_setting_is_refused_with_the_key_to_add(tiny: Recipe, workspace: Workspace, log):
    runner = Runner(workspace, log)
    with pytest.raises(NotRedistilledError, match="Add `redistil: true`"):
        redistil(Graph(tiny), runner, make_in_process(runner))


def test_damage_of_another_recipe_stops_the_collector_and_not_the_run(
    tiny: Recipe, workspace: Workspace, log, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    damaged = workspace.artefacts / "corpus" / "0123456789abcdef" / "manifest.json"
    damaged.parent.mkdir(parents=True)
    damaged.write_text("{")
    monkeypatch.setattr(Attempt, "run", lambda attempt, _at, _force: attempt.outcome("promoted", "all new"))
    runner = Runner(workspace, log)
    graph = Graph(tiny.model_copy(update={"redistil": Redistil()}))
    assert redistil(graph, runner, make_in_process(runner)).verdict == "promoted"
    assert [entry.verdict for entry in Ledger(workspace, tiny.name).entries()] == ["promoted"]
    assert f"nothing more is removed: {damaged}" in caplog.text
