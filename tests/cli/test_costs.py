"""What the first lines of a run say: every step, how sure the figure is, and what would shorten a run of days."""

import pytest

from stella_assets.lineage.plan import Planned
from stella_assets.pipelines.cli.costs import cost_table, say_costs, total_line
from stella_assets.pipelines.cli.printing import out

EXISTS = Planned("corpus", "exists")
TEACHER = Planned("teacher_vectors/a", "made", ("new",), "900 texts to embed", 90.0, 700, 2.0, source="a probe")
STAGE = Planned("stage_2", "made", (), "250 steps of 40 texts", 40 * 3600.0, 900, source="2 past runs")
UNKNOWN = Planned("scores/a", "made", (), "", None)


def said(capsys: pytest.CaptureFixture[str], *planned: Planned) -> str:
    say_costs(planned, "cpu, 2 threads")
    return " ".join(capsys.readouterr().err.split())


def test_a_run_begins_with_what_each_step_costs(capsys: pytest.CaptureFixture[str]):
    told = said(capsys, EXISTS, TEACHER, UNKNOWN)
    assert (
        "teacher_vectors/a (900 texts to embed): 1 min 30 s, 700 MiB memory, 2 MiB disk, from a probe 1 of 3 artefacts "
        "exist; the others take about 1 min 30 s, not counting 1 whose time nothing tells. Device: cpu, 2 threads."
    ) in told
    assert "shorten" not in told


def test_a_run_of_days_says_what_takes_longest_and_what_would_shorten_it(capsys: pytest.CaptureFixture[str]):
    told = said(capsys, TEACHER, STAGE)
    assert (
        "This run takes about 40 h 1 min on this device, 40 h 0 min of it in stage_2; fewer `texts`, `epochs` or "
        "`steps` of that stage, a shorter `student.max_length`, fewer layers or a GPU would shorten it."
    ) in told


def test_money_is_a_column_only_where_something_costs_it(capsys: pytest.CaptureFixture[str]):
    out.print(cost_table([TEACHER], "t"))
    assert "dollars" not in capsys.readouterr().out
    paid = Planned("teacher_vectors/b", "made", (), "900 texts to embed", 5.0, money=1.25, source="a probe")
    out.print(cost_table([TEACHER, paid, UNKNOWN], "t"))
    shown = capsys.readouterr().out
    for part in ("dollars", "1.25", "0.00", "unknown"):
        assert part in shown
    assert total_line([TEACHER, paid]) == "0 of 2 artefacts exist; the others take about 1 min 35 s, and 1.25 dollars."


def test_a_complete_recipe_says_nothing_of_time(capsys: pytest.CaptureFixture[str]):
    assert said(capsys, EXISTS) == ""
    assert total_line([EXISTS]) == "1 of 1 artefacts exist."


def test_a_run_that_nothing_tells_of_does_not_take_no_time():
    assert total_line([EXISTS, UNKNOWN]) == "1 of 2 artefacts exist; nothing tells yet how long the others take."
