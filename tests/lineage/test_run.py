"""The whole pipeline by the `stella` command, as a user runs it: real parts, a small recipe, kills in the middle."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import duckdb
import numpy as np
import pytest

from tests.conftest import TINY, write_recipe

STELLA = str(Path(sys.executable).with_name("stella"))


class Run:
    """A home folder and a recipe, and `stella` on them."""

    def __init__(self, root: Path) -> None:
        root.mkdir(exist_ok=True)
        self.home = root / "home"
        self.recipe = write_recipe(root, TINY)
        self.environment = {**os.environ, "STELLA_HOME": str(self.home)}

    def stella(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [STELLA, *(str(self.recipe) if a == "RECIPE" else a for a in arguments)]
        return subprocess.run(command, capture_output=True, text=True, env=self.environment, check=False)

    def kill_once(self, appears: str) -> None:
        """Start a run and `kill -9` it as soon as a file matching the pattern is in the home folder."""
        process = subprocess.Popen(
            [STELLA, "run", str(self.recipe)],
            env=self.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        deadline = time.monotonic() + 240
        while not any(self.home.glob(appears)):
            assert process.poll() is None, "the run ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def manifest(self, asset: str) -> dict:
        return json.loads((self.home / "tiny" / asset / "manifest.json").read_text())


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """An undisturbed run."""
    run = Run(tmp_path_factory.mktemp("undisturbed"))
    done = run.stella("run", "RECIPE")
    assert done.returncode == 0, done.stderr
    assert "tiny is complete" in done.stdout
    return run


def assets(manifests: Iterable[Path]) -> list[Path]:
    """Those of the graph, without the single scores that `mteb/*` rest on."""
    return [path for path in manifests if "task_scores" not in path.parts]


def test_a_second_run_recomputes_nothing(finished: Run):
    made_at = {path: path.stat().st_mtime_ns for path in finished.home.glob("artefacts/**/manifest.json")}
    done = finished.stella("run", "RECIPE")
    assert done.returncode == 0
    assert done.stderr.count("reused, nothing to do") == len(assets(made_at)) == 23
    assert {path: path.stat().st_mtime_ns for path in finished.home.glob("artefacts/**/manifest.json")} == made_at


def test_the_report_has_every_model_dimension_and_retention(finished: Run):
    done = finished.stella("report", "RECIPE", "--json")
    report = json.loads(done.stdout)
    assert report["recipe"] == "tiny"
    names = [(model["name"], model["dimension"]) for model in report["models"]]
    assert names == [
        ("teacher/minilm", 384),
        ("teacher/lsa", 32),
        ("concatenation", 416),
        ("untouched_student", 384),
        ("stage_1", 416),
        ("stage_2", 416),
        ("stage_3", 416),
        ("stage_3", 64),
        ("stage_3", 32),
    ]
    for model in report["models"]:
        assert set(model["scores"]) == {"HeldOutRetrieval", "HeldOutClassification", "HeldOutPairClassification"}
        assert model["mean"] == pytest.approx(sum(model["scores"].values()) / 3, abs=1e-5)
    assert set(report["retention"]) == {"teacher/minilm", "teacher/lsa", "concatenation"}
    html = (finished.home / "tiny/evaluation_report/report.html").read_text()
    assert html.count("data:image/png;base64,") == 7
    assert "http" not in html.replace("http-equiv", "")  # one page, nothing fetched


def test_the_release_loads_in_sentence_transformers_by_its_link(finished: Run):
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(finished.home / "tiny" / "release"), device="cpu")
    query = model.encode(["shortest path between two nodes"], prompt_name="s2p_query")
    documents = model.encode(["Compute shortest paths in the graph.", "Represent a database connection."])
    first, second = model.similarity(query, documents)[0].tolist()
    assert documents.shape == (2, 64)
    assert first > second
    card = (finished.home / "tiny/release/README.md").read_text()
    for part in ("| minilm | sentence_transformers | 384 | 1.0 | Apache-2.0 |", "s2p_query", "| stage_3 |"):
        assert part in card


def test_every_manifest_names_the_exact_digests_of_its_inputs(finished: Run):
    digests = {m["identity"]["asset"]: m["digest"] for m in map(json.loads, _manifests(finished))}
    for manifest in map(json.loads, _manifests(finished)):
        for name, digest in manifest["identity"]["inputs"].items():
            assert name.startswith("source:") or digests[name] == digest
    assert json.loads((finished.home / "tiny/release/lineage.json").read_text()).keys() >= {"corpus", "stage_3"}


def test_nothing_half_made_is_left_over(finished: Run):
    left = [*finished.home.glob("artefacts/**/*.draft"), *finished.home.glob("artefacts/**/*.scratch")]
    assert left == []


def _manifests(run: Run) -> list[str]:
    return [path.read_text() for path in run.home.glob("artefacts/**/manifest.json")]


def test_dagster_knows_the_run_its_data_versions_and_checks(finished: Run):
    code = """
import dagster as dg, json
from pipelines.resources import prepare_environment
prepare_environment()
with dg.DagsterInstance.get() as instance:
    runs = instance.get_runs()
    event = instance.get_latest_materialization_event(dg.AssetKey(["tiny", "release"]))
    tags = event.asset_materialization.tags
    checks = [r for r in instance.get_records_for_run(runs[-1].run_id).records
              if r.event_log_entry.dagster_event_type == dg.DagsterEventType.ASSET_CHECK_EVALUATION]
    print(json.dumps([[str(r.status) for r in runs], tags["dagster/data_version"], len(checks)]))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=finished.environment, check=True
    )
    statuses, data_version, checks = json.loads(done.stdout.splitlines()[-1])
    assert set(statuses) == {"DagsterRunStatus.SUCCESS"}
    assert data_version == finished.manifest("release")["digest"]
    assert checks == 29


def test_sql_answers_over_scores_vectors_and_artefacts(finished: Run):
    query = "SELECT model, round(avg(score), 3) AS mean FROM scores GROUP BY 1 ORDER BY 2 DESC"
    rows = json.loads(finished.stella("sql", query, "--format", "json").stdout)
    assert {row["model"] for row in rows} >= {"teacher/minilm", "stage_3"}
    query = "SELECT teacher, rows, dim FROM vector_stats WHERE source = '*' ORDER BY dim"
    csv = finished.stella("sql", query, "--format", "csv").stdout
    assert csv.splitlines() == ["teacher,rows,dim", "lsa,700,32", "minilm,700,384", "concatenation,700,416"]
    with duckdb.connect(str(finished.home / "statistics.duckdb"), read_only=True) as connection:
        query = "SELECT count(*), min(seconds) >= 0 FROM artefacts WHERE NOT starts_with(asset, 'task_scores/')"
        seconds = connection.execute(query).fetchone()
    assert seconds == (23, True)
    wrong = finished.stella("sql", "SELECT * FROM score")
    assert wrong.returncode == 2
    views = "Views: artefacts, contamination, dimension_stats, drift, dropped, evaluation_tasks, funnel, gate, "
    assert views in wrong.stderr.replace("\n", " ")


def test_the_questions_of_the_readme_have_answers(finished: Run):
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    queries = re.findall(r'stella sql "(SELECT [^"]+)"', readme)
    assert len(queries) == 3
    for query in queries:
        done = finished.stella("sql", query.replace("'demo'", "'tiny'"), "--format", "json")
        assert done.returncode == 0, done.stderr
        assert len(json.loads(done.stdout)) >= 4


MOMENTS = {
    "encoding": "lancedb/teacher_vectors.*/data/*",
    "snapshot": "lancedb/tiny.concat*/data/*",
    "training": "artefacts/stage_2/*.scratch/checkpoints/checkpoint-00000004",
    "saving": "artefacts/stage_3/*.draft/model/config.json",
    "scoring": "artefacts/mteb/stage_3/*.draft",
    "releasing": "artefacts/release/*.draft/config.json",
}


def test_a_run_that_is_killed_with_9_at_every_turn_ends_with_the_same_release(finished: Run, tmp_path: Path):
    run = Run(tmp_path / "killed")
    for appears in MOMENTS.values():
        run.kill_once(appears)
        assert not any(run.home.glob("artefacts/release/*/manifest.json"))
    done = run.stella("run", "RECIPE")
    assert done.returncode == 0, done.stderr
    assert "was killed; going on where it stopped" in done.stderr
    assert run.manifest("release")["digest"] == finished.manifest("release")["digest"]
    assert run.manifest("stage_2")["facts"]["resumed_at_step"] >= 4


def test_two_runs_at_once_wait_for_each_other_and_agree(finished: Run, tmp_path: Path):
    run = Run(tmp_path / "twice")
    command = [STELLA, "run", str(run.recipe), "--select", "corpus", "--select", "teacher_vectors"]
    both = [subprocess.Popen(command, env=run.environment, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [process.communicate()[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    assert "waiting for it" in "".join(outputs)
    vectors = json.loads((run.home / "tiny/teacher_vectors/minilm/vectors.json").read_text())
    assert vectors == json.loads((finished.home / "tiny/teacher_vectors/minilm/vectors.json").read_text())


def test_a_changed_stage_redoes_that_stage_and_what_follows_only(finished: Run, tmp_path: Path):
    import copy

    raw = copy.deepcopy(TINY)
    raw["stages"][2]["learning_rate"] = 0.0001
    changed = write_recipe(tmp_path, raw)
    done = finished.stella("status", str(changed))
    state = {line.split("│")[1].strip(): line.split("│")[2].strip() for line in done.stdout.splitlines() if "│" in line}
    assert state["stage_2"] == state["vector_stats"] == state["mteb/stage_2"] == "there"
    assert state["stage_3"] == "would be made"
    assert state["release"].startswith("waits for")


def test_vectors_in_plain_lancedb_are_of_unit_norm_by_teacher(finished: Run):
    import lancedb

    table = lancedb.connect(str(finished.home / "lancedb")).open_table("tiny.concatenated_vectors")
    layout = json.loads(table.schema.metadata[b"stella.layout"])
    assert (layout["teachers"], layout["dims"], layout["weights"]) == (["minilm", "lsa"], [384, 32], [1.0, 0.5])
    rows = table.to_arrow()
    for teacher, dim in (("minilm", 384), ("lsa", 32)):
        vectors = np.stack(rows.column(f"vector_{teacher}").to_numpy()).astype(np.float32)
        assert vectors.shape == (700, dim)
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=2e-3)


def test_a_release_is_promoted_listed_shown_and_not_taken_back_further_than_the_first(finished: Run):
    """The last test here: from now on the home folder has a release to compare with."""
    assert finished.stella("release", "show", "RECIPE").returncode == 1
    assert finished.stella("release", "promote", "RECIPE", "--name", "v1").returncode == 0
    served = finished.home / "releases" / "tiny" / "current"
    assert json.loads((served / "manifest.json").read_text())["digest"] == finished.manifest("release")["digest"]
    (listed,) = json.loads(finished.stella("release", "list", "RECIPE", "--json").stdout)
    assert (listed["name"], listed["served"]) == ("v1", True)
    shown = json.loads(finished.stella("release", "show", "RECIPE", "v1", "--json").stdout)
    assert shown["lineage"]["stage_3"]["digest"] == finished.manifest("stage_3")["digest"]
    refused = finished.stella("release", "rollback", "RECIPE")
    assert refused.returncode == 2
    assert "nothing to go back to" in refused.stderr
    done = finished.stella("run", "RECIPE")
    assert done.returncode == 0
    assert "released at 416 dimensions" in done.stderr
    assert finished.stella("release", "promote", "RECIPE", "--name", "v1").returncode == 0
