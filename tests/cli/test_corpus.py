"""`stella corpus`: what happened to a text, the data set as a folder, shards that can be removed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from datasets import load_dataset

from stella_assets.storage.workspace import Workspace
from tests.conftest import TINY, write_recipe
from tests.corpus.conftest import different

STELLA = str(Path(sys.executable).with_name("stella"))


class Made:
    """A workspace folder with the corpus and the vectors of one recipe on two files."""

    def __init__(self, root: Path) -> None:
        self.workspace = Workspace(root / "workspace")
        (root / "a.txt").write_text("\n".join([*(different(i) for i in range(60)), different(3).upper(), "short"]))
        raw = json.loads(json.dumps(TINY))
        source = {"name": "mine", "licence": "CC0-1.0", "kind": "text", "path": "./a.txt", "unit": "line"}
        raw["corpus"] = {"sources": [source], "dev": 0.2, "test": 0.2, "augment": {"shuffle": 0.2}}
        raw["teachers"] = raw["teachers"][:1]
        self.recipe = write_recipe(root, raw)
        done = self.stella("run", str(self.recipe), "--select", "teacher_vectors")
        assert done.returncode == 0, done.stderr

    def stella(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "STELLA_HOME": str(self.workspace.root), "COLUMNS": "200"}
        return subprocess.run([STELLA, *arguments], capture_output=True, text=True, env=environment, check=False)

    def explain(self, text: str) -> list[dict[str, str]]:
        return json.loads(self.stella("corpus", "explain", str(self.recipe), text, "--json").stdout)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return Made(tmp_path_factory.mktemp("corpus"))


def test_explain_shows_what_happened_to_a_text(made: Made):
    kept = made.explain(different(5))
    assert len(kept) == 1
    assert kept[0]["what"].startswith("in the corpus, split ")
    assert made.explain(kept[0]["id"]) == made.explain(kept[0]["id"][:16]) == kept
    both = {trace["what"].split(",")[0]: trace for trace in made.explain("  " + different(3).lower())}
    assert set(both) == {"dropped by duplicates: duplicate", "in the corpus"}
    assert both["dropped by duplicates: duplicate"]["detail"].removeprefix("copy of ") in both["in the corpus"]["id"]
    (short,) = made.explain("short")
    assert (short["what"], short["value"], short["origin"]) == ("dropped by cleaned_texts: too short", 5.0, "a.txt:62")
    shown = made.stella("corpus", "explain", str(made.recipe), "short").stdout
    assert "dropped by cleaned_texts: too short" in shown
    unknown = made.stella("corpus", "explain", str(made.recipe), "a text that nobody wrote")
    assert (unknown.returncode, unknown.stdout) == (1, "No source of the recipe has this text.\n")


def test_the_data_set_is_a_folder_that_datasets_reads_with_vectors_of_a_teacher(made: Made, tmp_path: Path):
    to = tmp_path / "texts"
    done = made.stella("corpus", "export", str(made.recipe), "--to", str(to), "--vectors", "minilm")
    assert done.returncode == 0, done.stderr
    splits = load_dataset(str(to), cache_dir=str(tmp_path / "cache"))
    assert set(splits) == {"train", "dev", "test"}
    rows = [row for split in splits.values() for row in split]
    assert len(rows) == 60
    assert {row["text"] for row in rows if not row["augmentation"]} <= {different(i) for i in range(60)}
    assert any(row["augmentation"] == "shuffled" for row in rows)
    np.testing.assert_allclose(np.linalg.norm([row["minilm"] for row in rows], axis=1), 1, atol=1e-3)
    card = (to / "README.md").read_text()
    for part in ("CC0-1.0", "| mine | duplicate | 1 |", "not compared with any", "384 dimensions"):
        assert part in card
    again = made.stella("corpus", "export", str(made.recipe), "--to", str(to))
    assert (again.returncode, "is not an empty folder" in again.stderr) == (2, True)
    unknown = made.stella("corpus", "export", str(made.recipe), "--to", str(tmp_path / "x"), "--vectors", "big")
    assert (unknown.returncode, "teacher 'big': the recipe does not have it. It has minilm" in unknown.stderr) == (
        2,
        True,
    )


def test_gc_deletes_only_shards_of_earlier_texts(made: Made):
    assert "Deleted: none" in made.stella("corpus", "gc").stdout
    stray = made.workspace.shards / "bands" / "ff" / "ffff-0000.parquet"
    stray.parent.mkdir(parents=True, exist_ok=True)
    stray.write_bytes(b"0" * 2**20)
    assert "1.0" in made.stella("corpus", "gc", "--dry-run").stdout
    assert stray.exists()
    made.stella("corpus", "gc")
    assert not stray.exists()
    assert "reused" in made.stella("run", str(made.recipe), "--select", "corpus").stderr
