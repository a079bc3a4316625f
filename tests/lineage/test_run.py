"""The whole pipeline by the `stella` command, as a user runs it: real parts, a small recipe, kills in the middle."""

import copy
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import dagster as dg
import duckdb
import numpy as np
import polars as pl
import pytest

from stella_assets.core.manifest import Manifest, file_digest
from stella_assets.core.runner import Runner
from stella_assets.evaluation.task_set import TaskSet
from stella_assets.lineage.find import find_artefact
from stella_assets.lineage.plan import plan
from stella_assets.lineage.reproduce import Reproduction
from stella_assets.pipelines.definitions import build_definitions
from stella_assets.recipe import Graph, parse_recipe, read_recipe
from stella_assets.storage.artefacts import ArtefactStore
from stella_assets.storage.workspace import Workspace
from stella_assets.training.start import Start, set_start
from tests.conftest import TINY, write_recipe
from tests.lineage.edits import EDITS

STELLA = str(Path(sys.executable).with_name("stella"))


class Run:
    """A workspace folder and a recipe, and `stella` on them."""

    def __init__(self, root: Path) -> None:
        root.mkdir(exist_ok=True)
        self.workspace = root / "workspace"
        self.recipe = write_recipe(root, TINY)
        self.environment = {**os.environ, "STELLA_HOME": str(self.workspace)}

    def stella(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [STELLA, *(str(self.recipe) if a == "RECIPE" else a for a in arguments)]
        return subprocess.run(command, capture_output=True, text=True, env=self.environment, check=False)

    def start(self, command: list[str], output: Path) -> tuple[subprocess.Popen[bytes], Path]:
        """A process whose output goes to a file."""
        with output.open("wb") as file:
            process = subprocess.Popen(
                command, env=self.environment, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
            )
        return process, output

    def wait_until(self, happened: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
        """Wait for a condition while a process runs."""
        deadline = time.monotonic() + 600
        while not happened():
            assert process.poll() is None, "the run ended before"
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def kill_once(self, appears: str) -> None:
        """Start a run and `kill -9` it as soon as a file matching the pattern is in the workspace folder."""
        process, _ = self.start([STELLA, "run", str(self.recipe)], self.workspace.with_name("killed"))
        self.wait_until(lambda: any(self.workspace.glob(appears)), process)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def manifest(self, asset: str) -> dict:
        return json.loads((self.workspace / "tiny" / asset / "manifest.json").read_text())


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """An undisturbed run."""
    run = Run(tmp_path_factory.mktemp("undisturbed"))
    done = run.stella("run", "RECIPE")
    assert done.returncode == 0, done.stderr
    assert "tiny is complete" in done.stdout
    return run


def assets(manifests: Iterable[Path]) -> list[Path]:
    """Links of the graph's artefacts, without the scores of single tasks."""
    return [path for path in manifests if "task_scores" not in path.parts]


def test_a_second_run_recomputes_nothing_and_grows_nothing(finished: Run):
    def sizes() -> dict[Path, int]:
        # Without what the first repetition remembers of the files that it has read.
        files = [path for path in finished.workspace.rglob("*") if path.is_file() and "checked" not in path.parts]
        return {path: path.stat().st_size for path in files}

    before = sizes()
    made_at = {path: path.stat().st_mtime_ns for path in finished.workspace.glob("artefacts/**/manifest.json")}
    done = finished.stella("run", "RECIPE")
    assert done.returncode == 0
    assert "tiny: 24 of 24 artefacts are reused." in done.stderr
    assert len(assets(made_at)) == 24
    assert {path: path.stat().st_mtime_ns for path in finished.workspace.glob("artefacts/**/manifest.json")} == made_at
    assert sizes() == before


@pytest.mark.parametrize("command", ["status", "plan", "report"])
def test_quick_commands_read_what_is_there_without_heavy_libraries(finished: Run, command: str):
    code = (
        "import atexit, sys\n"
        "heavy = {'torch', 'lance', 'polars', 'pandas'}\n"
        "atexit.register(lambda: print(sorted(heavy & set(sys.modules))))\n"
        f"sys.argv[1:] = [{command!r}, {str(finished.recipe)!r}]\n"
        "from stella_assets.pipelines.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=finished.environment, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_report_has_every_model_dimension_and_retention(finished: Run):
    done = finished.stella("report", "RECIPE", "--json")
    report = json.loads(done.stdout)
    assert report["recipe"] == "tiny"
    names = [(model["name"], model["dimension"]) for model in report["models"]]
    assert names == [
        ("teacher/minilm", 384),
        ("teacher/lsa", 32),
        ("concatenation", 416),
        ("base_model", 384),
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
    html = (finished.workspace / "tiny/evaluation_report/report.html").read_text()
    assert html.count("data:image/png;base64,") == 8
    page = re.sub(
        r"base64,[A-Za-z0-9+/=]+", "", html.replace("http-equiv", "")
    )  # an image's letters may spell anything
    assert "http" not in page  # one page, nothing fetched


def test_the_release_loads_in_sentence_transformers_by_its_link(finished: Run):
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(finished.workspace / "tiny" / "release"), device="cpu")
    query = model.encode(["shortest path between two nodes"], prompt_name="s2p_query")
    documents = model.encode(["Compute shortest paths in the graph.", "Represent a database connection."])
    first, second = model.similarity(query, documents)[0].tolist()
    assert documents.shape == (2, 64)
    assert first > second
    card = (finished.workspace / "tiny/release/README.md").read_text()
    for part in ("| minilm | sentence_transformers | 384 | 1 | no | Apache-2.0 |", "s2p_query", "| stage_3 |"):
        assert part in card


def test_a_stranger_who_calls_mteb_on_the_release_gets_the_scores_of_the_report(finished: Run):
    import mteb
    from mteb.models import SentenceTransformerEncoderWrapper

    scored = json.loads(finished.stella("report", "RECIPE", "--json").stdout)["models"]
    (reported,) = (model["scores"] for model in scored if (model["name"], model["dimension"]) == ("stage_3", 64))
    model = SentenceTransformerEncoderWrapper(str(finished.workspace / "tiny/release"), device="cpu")
    opened = TaskSet(finished.workspace / "tiny/evaluation_tasks", read_recipe(finished.recipe).evaluation).open()
    assert {task.name for task in opened} == set(reported)
    for task in opened:
        results = mteb.evaluate(model, task.load(), cache=None, co2_tracker=False, show_progress_bar=False)
        assert float(results.task_results[0].get_score()) == pytest.approx(reported[task.name], abs=1e-4), task.name
    vectors = model.model.encode_query(["shortest path"])
    np.testing.assert_allclose(vectors, model.model.encode(["Query: shortest path"]), atol=1e-6)


def test_every_manifest_names_the_exact_digests_of_its_inputs(finished: Run):
    digests = {m["identity"]["asset"]: m["digest"] for m in map(json.loads, _manifests(finished))}
    for manifest in map(json.loads, _manifests(finished)):
        for name, digest in manifest["identity"]["inputs"].items():
            assert name.startswith("source:") or digests[name] == digest
    assert json.loads((finished.workspace / "tiny/release/lineage.json").read_text()).keys() >= {"corpus", "stage_3"}


def test_no_incomplete_artefact_is_left(finished: Run):
    left = [*finished.workspace.glob("artefacts/**/*.draft"), *finished.workspace.glob("artefacts/**/*.scratch")]
    assert left == []


def _manifests(run: Run) -> list[str]:
    return [path.read_text() for path in run.workspace.glob("artefacts/**/manifest.json")]


def test_dagster_knows_the_run_its_data_versions_and_checks(finished: Run):
    code = """
import dagster as dg, json
from stella_assets.pipelines.environment import prepare_environment
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
    assert checks == 33


def test_sql_answers_over_scores_vectors_and_artefacts(finished: Run):
    query = "SELECT model, round(avg(score), 3) AS mean FROM scores GROUP BY 1 ORDER BY 2 DESC"
    rows = json.loads(finished.stella("sql", query, "--format", "json").stdout)
    assert {row["model"] for row in rows} >= {"teacher/minilm", "stage_3"}
    query = "SELECT teacher, rows, dim FROM vector_stats WHERE source = '*' ORDER BY dim"
    csv = finished.stella("sql", query, "--format", "csv").stdout
    assert csv.splitlines() == ["teacher,rows,dim", "lsa,700,32", "minilm,700,384", "concatenation,700,416"]
    with duckdb.connect(str(finished.workspace / "statistics.duckdb"), read_only=True) as connection:
        query = "SELECT count(*), min(seconds) >= 0 FROM artefacts WHERE NOT starts_with(asset, 'task_scores/')"
        seconds = connection.execute(query).fetchone()
    assert seconds == (24, True)
    wrong = finished.stella("sql", "SELECT * FROM score")
    assert wrong.returncode == 2
    views = "Views: api_costs, artefacts, contamination, dimension_stats, drift, dropped, dropped_pairs, "
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
    "scoring": "artefacts/scores/stage_3/*.draft",
    "releasing": "artefacts/release/*.draft/config.json",
}


@pytest.mark.slow
def test_a_run_that_is_killed_again_and_again_ends_with_the_same_release(finished: Run, tmp_path: Path):
    run = Run(tmp_path / "killed")
    assert run.stella("pools", "encoding=1", "training=1").returncode == 0  # a slot that stays taken would stop it
    for appears in MOMENTS.values():
        run.kill_once(appears)
        assert not any(run.workspace.glob("artefacts/release/*/manifest.json"))
    done = run.stella("run", "RECIPE")
    assert done.returncode == 0, done.stderr
    assert "was killed; continuing where it stopped" in done.stderr
    assert run.manifest("release")["digest"] == finished.manifest("release")["digest"]
    assert run.manifest("stage_2")["metrics"]["resumed_at_step"] >= 4


@pytest.mark.slow
def test_two_runs_at_once_wait_for_each_other_and_agree(finished: Run, tmp_path: Path):
    run = Run(tmp_path / "twice")
    command = [STELLA, "run", str(run.recipe), "--select", "corpus", "--select", "teacher_vectors"]
    store, key = ArtefactStore(Workspace(run.workspace)), finished.manifest("cleaned_texts")["key"]
    with store.lock("cleaned_texts", key, lambda: None):  # both reach it while it is locked, so they meet
        both = [run.start(command, tmp_path / f"output_{number}") for number in range(2)]
        for process, output in both:
            run.wait_until(lambda output=output: "waiting for it" in output.read_text(), process)
    assert [process.wait() for process, _ in both] == [0, 0], [output.read_text() for _, output in both]
    vectors = json.loads((run.workspace / "tiny/teacher_vectors/minilm/vectors.json").read_text())
    assert vectors == json.loads((finished.workspace / "tiny/teacher_vectors/minilm/vectors.json").read_text())


@pytest.mark.parametrize("edit", EDITS)
def test_an_edit_makes_stale_what_depends_on_it_and_nothing_else(edit: str, finished: Run):
    change, stale = EDITS[edit]
    raw = copy.deepcopy(TINY)
    change(raw)
    graph = Graph(parse_recipe(raw, finished.recipe))
    planned = plan(graph, Runner(Workspace(finished.workspace), logging.getLogger("test")))
    assert {asset.asset for asset in planned if asset.state == "made"} == stale
    assert all(asset.because for asset in planned if asset.state == "made")


def test_a_comment_makes_nothing_stale_and_a_plan_says_why_something_is(finished: Run, tmp_path: Path):
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text("# A thought.\n" + finished.recipe.read_text())
    assert "24 of 24 artefacts exist." in finished.stella("plan", str(recipe)).stdout
    raw = copy.deepcopy(TINY)
    raw["stages"][2] |= {"learning_rate": 0.0001, "steps": 24}
    planned = json.loads(finished.stella("plan", str(write_recipe(tmp_path, raw)), "--json").stdout)
    changed = {asset["asset"]: asset for asset in planned if asset["state"] == "made"}
    assert changed["stage_3"]["because"] == ["stage.learning_rate 0.0003 -> 0.0001", "stage.steps 12 -> 24"]
    assert changed["stage_3"]["work"] == "24 steps of 16 texts"
    assert changed["stage_3"]["seconds"] == pytest.approx(
        2 * finished.manifest("stage_3")["run_info"]["seconds"], rel=0.01
    )
    assert changed["release"]["because"] == ["evaluation_report is made again", "stage_3 is made again"]


def test_lineage_goes_down_to_the_sources(finished: Run, tmp_path: Path):
    traced = json.loads(finished.stella("lineage", "tiny", "--json").stdout)
    assert traced["asset"] == "release"
    assert traced["artefacts"]["cleaned_texts"]["sources"].keys() == {"docs"}
    assert traced["artefacts"]["stage_1"]["run_info"]["cpu"]
    assert traced["artefacts"]["teacher_vectors/minilm"]["run_info"]["because"] == ["not made for this recipe before"]
    digest = finished.manifest("stage_2")["digest"]
    printed = finished.stella("lineage", digest[:10]).stdout
    assert printed.startswith(f"stage_2 {digest[:12]}")
    assert "cleaned_texts" in printed
    picture = tmp_path / "lineage.svg"
    assert finished.stella("lineage", "tiny/scores/stage_3", "--svg", str(picture)).returncode == 0
    assert all(f">{name}<" in picture.read_text() for name in ("corpus", "stage_1", "stage_2"))
    unknown = finished.stella("lineage", "tiny@v7")
    assert unknown.returncode == 1
    assert "no release or snapshot of this name" in unknown.stderr


def linked_copy(finished: Run, folder: Path) -> Run:
    """A workspace with the same files, each of which can be replaced."""
    run = Run(folder)
    shutil.copytree(finished.workspace, run.workspace, symlinks=True, copy_function=os.link)
    return run


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.unlink()
    path.write_bytes(content)


@pytest.mark.slow
def test_a_flipped_bit_of_a_vector_or_a_weight_is_found_and_named(finished: Run, tmp_path: Path):
    check = ("reproduce", "tiny", "--recipe", str(finished.recipe), "--check")
    whole = finished.stella(*check)
    assert whole.returncode == 0, whole.stderr
    assert "artefacts have the bytes" in whole.stdout
    run = linked_copy(finished, tmp_path / "damaged")
    (fingerprint,) = set(
        json.loads((run.workspace / "tiny/teacher_vectors/lsa/vectors.json").read_text())["fingerprints"].values()
    )
    flip_a_bit(next((run.workspace / f"lancedb/teacher_vectors.{fingerprint}.lance/data").iterdir()))
    flip_a_bit(run.workspace / "tiny" / "stage_2" / "model" / "model.safetensors")
    found = run.stella(*check, "--json")
    assert found.returncode == 1
    damages = json.loads(found.stdout)["damages"]
    assert {(damage["kind"], damage["asset"]) for damage in damages} == {
        ("vectors", "teacher_vectors/lsa"),
        ("content", "stage_2"),
    }


def test_what_the_recipe_continues_from_now_is_not_part_of_an_older_release(finished: Run, tmp_path: Path):
    run = linked_copy(finished, tmp_path / "continued")
    stage = run.manifest("stage_3")
    set_start(Workspace(run.workspace), "tiny", Start("stage_3", stage["key"], stage["digest"]))
    found = run.stella("reproduce", "tiny", "--recipe", str(finished.recipe), "--check", "--json")
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout)["mismatches"] == []


def test_a_release_is_not_made_again_from_another_recipe(finished: Run, tmp_path: Path):
    raw = copy.deepcopy(TINY)
    raw["stages"][2]["learning_rate"] = 0.0001
    done = finished.stella("reproduce", "tiny", "--recipe", str(write_recipe(tmp_path, raw)), "--json")
    assert done.returncode == 2
    assert "would be another release" in done.stderr
    (mismatch,) = json.loads(done.stdout)["mismatches"]
    assert (mismatch["asset"], mismatch["what"]) == ("stage_3", "stage.learning_rate")
    assert (mismatch["before"], mismatch["now"]) == (0.0003, 0.0001)


@pytest.mark.slow
def test_a_different_result_is_measured_and_distinguished_from_what_depends_on_it(finished: Run, tmp_path: Path):
    """A workspace in which everything exists already, except scores that differ."""
    fresh, log = linked_copy(finished, tmp_path / "fresh"), logging.getLogger("test")
    workspace, recipe = Workspace(finished.workspace), read_recipe(finished.recipe)
    release = find_artefact(workspace, "tiny")

    def runner() -> Runner:
        return Runner(Workspace(fresh.workspace), log)

    compared = list(Reproduction(release, Graph(recipe), workspace, runner()).run())
    assert {comparison.verdict for comparison in compared} == {"identical"}
    assert len(compared) == len(release.all) == 21
    scores = fresh.workspace / "tiny" / "scores" / "stage_3" / "scores.parquet"
    rows = pl.read_parquet(scores)
    scores.unlink()
    rows.with_columns(score=pl.col("score") + 0.005).write_parquet(scores)
    manifest = Manifest.read(scores.with_name("manifest.json"))
    changed = replace(manifest, outputs={**manifest.outputs, "scores.parquet": file_digest(scores)})
    scores.with_name("manifest.json").unlink()
    scores.with_name("manifest.json").write_text(changed.to_json())
    compared = list(Reproduction(release, Graph(recipe), workspace, runner()).run())
    other = {comparison.asset: comparison for comparison in compared if comparison.verdict != "identical"}
    assert {asset: comparison.verdict for asset, comparison in other.items()} == {
        "scores/stage_3": "within tolerance",
        "evaluation_report": "follows",
        "release": "follows",
    }
    assert other["scores/stage_3"].measured == "a score differs by 0.50 points, tolerance 1"


def test_vectors_in_plain_lancedb_are_of_unit_norm_by_teacher(finished: Run):
    import lancedb

    table = lancedb.connect(str(finished.workspace / "lancedb")).open_table("tiny.concatenated_vectors")
    layout = json.loads(table.schema.metadata[b"stella.layout"])
    assert (layout["teachers"], layout["dims"], layout["weights"]) == (["minilm", "lsa"], [384, 32], [1.0, 0.5])
    rows = table.to_arrow()
    for teacher, dim in (("minilm", 384), ("lsa", 32)):
        vectors = np.stack(rows.column(f"vector_{teacher}").to_numpy()).astype(np.float32)
        assert vectors.shape == (700, dim)
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=2e-3)


@pytest.mark.slow
def test_a_release_is_promoted_listed_shown_and_not_rolled_back_beyond_the_first(finished: Run):
    """The last test here: from now on the workspace folder has a release to compare with."""
    assert finished.stella("release", "show", "RECIPE").returncode == 1
    job = build_definitions([Graph(read_recipe(finished.recipe))], Workspace(finished.workspace)).resolve_job_def(
        "promote_tiny"
    )
    fill_in = {"ops": {"promote_newest_of_tiny": {"config": {"name": "v1"}}}}
    assert job.execute_in_process(fill_in, instance=dg.DagsterInstance.ephemeral()).success
    active = finished.workspace / "releases" / "tiny" / "current"
    assert json.loads((active / "manifest.json").read_text())["digest"] == finished.manifest("release")["digest"]
    (listed,) = json.loads(finished.stella("release", "list", "RECIPE", "--json").stdout)
    assert (listed["name"], listed["active"]) == ("v1", True)
    shown = json.loads(finished.stella("release", "show", "RECIPE", "v1", "--json").stdout)
    assert shown["lineage"]["stage_3"]["digest"] == finished.manifest("stage_3")["digest"]
    refused = finished.stella("release", "rollback", "RECIPE")
    assert refused.returncode == 1
    assert "nothing to go back to" in refused.stderr
    done = finished.stella("run", "RECIPE")
    assert done.returncode == 0
    assert "active_release at 416 dimensions" in done.stderr
    assert finished.stella("release", "promote", "RECIPE", "--name", "v1").returncode == 0
