"""`stella vectors` as a person uses it: its output, its exit codes, and its JSON."""

import copy
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from stella_assets.recipe import read_recipe
from stella_assets.storage.workspace import Workspace
from stella_assets.teachers.snapshot import Snapshot, snapshot_tags
from tests.conftest import TINY, write_recipe

STELLA = str(Path(sys.executable).with_name("stella"))
SELECTED = ("corpus", "teacher_vectors", "concatenated_vectors", "vector_stats")


class Store:
    def __init__(self, root: Path) -> None:
        self.workspace = Workspace(root / "workspace")
        raw = copy.deepcopy(TINY)
        raw["corpus"]["sources"][0] |= {"packages": ["networkx"], "limit": 200}
        self.recipe = write_recipe(root, raw)
        self.run()
        raw["corpus"]["sources"][0]["limit"] = 210
        raw["teachers"] = raw["teachers"][:1]
        self.recipe = write_recipe(root, raw)
        self.run()

    def run(self) -> None:
        done = self.stella("run", str(self.recipe), *(part for name in SELECTED for part in ("--select", name)))
        assert done.returncode == 0, done.stderr
        self.said = done.stderr

    def stella(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "STELLA_HOME": str(self.workspace.root)}
        return subprocess.run([STELLA, *arguments], capture_output=True, text=True, env=environment, check=False)

    def vectors(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.stella("vectors", *arguments)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("store"))


def test_an_increment_embeds_and_writes_only_what_is_new_and_reports_it(store: Store):
    said = " ".join(store.said.split())
    assert "minilm: 10 texts encoded, 200 were there already" in said
    assert "10 of 210 rows written, and for the rows that were there the columns of no teacher" in said


def test_list_and_show_explain_teachers_and_snapshots(store: Store):
    listed = json.loads(store.vectors("list", "--json").stdout)
    teachers = {row["teacher"]: row for row in listed["teachers"]}
    assert (teachers["minilm"]["rows"], teachers["minilm"]["dim"], teachers["lsa"]["dim"]) == (210, 384, 32)
    assert [(row["rows"], row["dim"], row["current"]) for row in listed["snapshots"]] == [
        (200, 416, ""),
        (210, 384, "yes"),
    ]
    assert "minilm 384 x 1, lsa 32 x 0.5" in store.vectors("list").stdout
    shown = json.loads(store.vectors("show", "tiny").stdout)
    assert shown["layout"]["teachers"] == ["minilm"]
    assert shown["lineage"]["inputs"].keys() == {"corpus", "teacher_vectors/minilm"}
    teacher = json.loads(store.vectors("show", teachers["minilm"]["fingerprint"]).stdout)["teacher"]
    expected = {
        "name": "minilm",
        "pooling": "mean",
        "max_length": 32,
        "normalised": True,
        "engine": "sentence-transformers",
    }
    assert teacher.items() >= expected.items()
    unknown = store.vectors("show", "nothing")
    assert unknown.returncode == 1
    assert "it has those of tiny" in unknown.stderr


def test_diff_shows_what_changed_between_two_snapshots(store: Store):
    first, second = snapshot_tags(store.workspace, "tiny")
    found = json.loads(store.vectors("diff", f"tiny@{first[:6]}", "tiny", "--json").stdout)
    assert found["texts"] == [{"source": "docs", "added": 10, "removed": 0, "changed": 0, "kept": 200}]
    assert [(row["teacher"], row["verdict"]) for row in found["teachers"]] == [("minilm", "kept"), ("lsa", "removed")]
    (drift,) = found["drift"]
    assert (drift["rows_added"], drift["rows_removed"], drift["same_fingerprint"]) == (10, 0, True)
    assert drift["linear_cka"] == pytest.approx(1)
    assert 0 < drift["changed_neighbours"] < 0.3
    assert 0 < drift["mean_shift"] < 0.1
    shown = store.vectors("diff", f"tiny@{first}", f"tiny@{second}").stdout
    assert "has 200 texts" in shown
    assert "removed" in shown


@pytest.mark.slow
def test_verify_recomputes_a_sample_and_repairs_what_is_damaged(store: Store):
    done = store.vectors("verify", str(store.recipe), "--sample", "16")
    assert done.returncode == 0, done.stderr
    assert "The store is intact." in done.stdout
    victim = next(Path(store.workspace.vectors).glob("tiny.*/data/*"))
    victim.write_bytes(victim.read_bytes()[:-1])
    damaged = store.vectors("verify", str(store.recipe), "--json")
    assert damaged.returncode == 1
    (damage,) = json.loads(damaged.stdout)["damages"]
    assert damage["place"] == f"data/{victim.name}"
    assert "truncated" in damage["what"]
    repaired = store.vectors("verify", str(store.recipe), "--repair")
    assert repaired.returncode == 0, repaired.stderr
    assert f"damaged tiny.concatenated_vectors data/{victim.name}" in repaired.stderr
    assert "The store is intact." in repaired.stdout


def test_gc_shows_what_it_would_delete_and_deletes_it(store: Store):
    first, second = snapshot_tags(store.workspace, "tiny")
    dry = json.loads(store.vectors("gc", "--dry-run", "--superseded", "--json").stdout)
    assert dry["dry_run"]
    assert any(first in item["what"] for item in dry["garbage"])
    assert list(snapshot_tags(store.workspace, "tiny")) == [first, second]
    assert "would be deleted" in store.vectors("gc", "--dry-run", "--superseded").stdout
    kept = store.vectors("gc")
    assert kept.returncode == 0
    assert list(snapshot_tags(store.workspace, "tiny")) == [first, second]  # tags keep them


@pytest.mark.slow
def test_exported_vectors_can_be_imported_again(store: Store, tmp_path: Path):
    done = store.vectors("export", "tiny", "--to", str(tmp_path / "out"), "--format", "npy")
    assert done.returncode == 0, done.stderr
    assert "210 rows" in done.stdout
    vectors = np.load(tmp_path / "out" / "vectors.npy")
    (tmp_path / "v.mmap").write_bytes(vectors.astype(np.float32).tobytes())
    snapshot = Snapshot.open(store.workspace, "tiny", list(snapshot_tags(store.workspace, "tiny"))[-1])
    texts = snapshot.take(np.arange(210), ["text"])["text"]
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    fresh = {**os.environ, "STELLA_HOME": str(tmp_path / "fresh")}
    command = ["vectors", "import", str(store.recipe), "--teacher", "minilm", "--vectors", str(tmp_path / "v.mmap")]
    command += ["--texts", str(tmp_path / "texts.jsonl"), "--dim", "384"]
    taken = subprocess.run([STELLA, *command], capture_output=True, text=True, env=fresh, check=False)
    assert taken.returncode == 0, taken.stderr
    assert "210 of 210 vectors stored" in " ".join(taken.stdout.split())
    wrong = subprocess.run([STELLA, *command[:-1], "96"], capture_output=True, text=True, env=fresh, check=False)
    assert wrong.returncode == 2
    assert "384 dims of float32 would fit" in wrong.stderr
    assert read_recipe(store.recipe).teachers[0].name == "minilm"
