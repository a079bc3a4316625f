"""A project of a few dozen texts that passes through every command that writes, and commands started in it.

Each command of `STORY` begins in the state that the one before left. Models have two layers of width 32.
"""

import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from stella_assets.storage.workspace import Workspace

RECIPE: dict[str, Any] = {
    "name": "kills",
    "description": "As small as a whole graph can be.",
    "corpus": {
        "sources": [
            {"name": "texts", "kind": "jsonl", "path": "texts", "columns": {"section": "section"}, "licence": "MIT"}
        ],
        "clean": {"document": {"min_chars": 20}, "query": {"min_chars": 20}},
        "deduplicate": None,
        "dev": 0.1,
        "test": 0.3,
    },
    "teachers": [
        {"name": "static", "kind": "static", "model": "./static", "licence": "MIT", "unit_rows": 32},
        {"name": "lsa", "kind": "lsa", "dim": 8, "licence": "MIT", "weight": 0.5, "unit_rows": 32},
    ],
    "student": {"model": "./bert", "keep_layers": [0], "max_length": 24, "matryoshka_dims": [16], "prompts": {}},
    "stages": [
        {"method": "closed_form", "train_layers": 0, "full_head": {"cosine": 1}},
        {
            "train_layers": "all",
            "full_head": {"cosine": 1},
            "batch_size": 16,
            "steps": 30,
            "learning_rate": 0.0003,
            "checkpoint_every": 5,
        },
    ],
    "evaluation": {"held_out": {"kinds": ["retrieval"]}},
    "release": {
        "dimension": 32,
        "licence": "MIT",
        "onnx": False,
        "gate": {"max_base_regression": None, "max_task_regression": None},
    },
    "redistil": {"keep": 1, "retention_days": 0, "min_gain": -100, "min_new_fraction": 0},
}
WORDS = "sort compare read write the rows columns of a table graph node list with by its neighbours keys values".split()


@dataclass
class Project:
    """A folder with a recipe, its texts and models, `home/` with all state, and `out/` with what is exported."""

    root: Path

    @property
    def workspace(self) -> Workspace:
        return Workspace(self.root / "home")

    def begin(self) -> None:
        """Write the recipe, its models and its first texts."""
        from tests.models import build

        shutil.rmtree(self.root, ignore_errors=True)
        for folder in ("recipes/texts", "out"):
            (self.root / folder).mkdir(parents=True)
        (self.root / "dagster.yaml").write_text("", encoding="utf-8")
        build("bert", self.root).rename(self.root / "recipes" / "bert")
        build("static_embedding", self.root).rename(self.root / "recipes" / "static")
        (self.root / "recipes" / "kills.yaml").write_text(yaml.safe_dump(RECIPE, sort_keys=False), encoding="utf-8")
        self.add_texts(0)

    def add_texts(self, week: int) -> None:
        """Add a file of texts, whose words belong to five sections."""
        draw = np.random.default_rng(week)
        rows = []
        for number in range(120 if week == 0 else 30):
            first, second = (" ".join(draw.choice(WORDS, 8)) for _ in range(2))
            text = f"The {first} of section {number % 5}. Then {second}, number {number} of week {week}."
            rows.append(json.dumps({"text": text, "section": f"section {number % 5}"}))
        (self.root / "recipes" / "texts" / f"week_{week}.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")

    def write_vectors(self) -> None:
        """Vectors of the teacher `static`, to be imported, of texts that no corpus has."""
        from sentence_transformers import SentenceTransformer

        texts = [f"imported {word} of a list of rows" for word in WORDS]
        vectors = SentenceTransformer(str(self.root / "recipes" / "static"), device="cpu").encode(texts)
        vectors.astype(np.float32).tofile(self.root / "out" / "vectors.f32")
        (self.root / "out" / "texts.txt").write_text("\n".join(texts) + "\n", encoding="utf-8")

    def flip(self, pattern: str) -> None:
        """Damage the first file of a pattern."""
        path = min(path for path in (self.root / "home").glob(pattern) if path.is_file())
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)


def _nothing(_project: Project) -> None:
    return


@dataclass(frozen=True)
class Command:
    """A command of the story.

    Attributes:
        arguments: Of `stella`.
        prepare: What a person does before it.
        is_done: Whether it must not be repeated after a kill, because it did all it was asked for.
        once: Whether it does something else when it is repeated, or refuses to.
    """

    arguments: tuple[str, ...]
    prepare: Callable[[Project], None] = _nothing
    is_done: Callable[[Project], bool] = lambda _project: False
    once: bool = False

    def __str__(self) -> str:
        return " ".join(self.arguments)


def start(project: Project, arguments: tuple[str, ...], log: Path) -> int:
    """Start `stella` in a process group of its own, and give its process.

    It is forked from this process, which has imported the libraries: else most kills would come while it imports them.
    """
    process = os.fork()
    if process:
        return process
    try:
        os.setsid()
        os.chdir(project.root)
        os.environ["STELLA_HOME"] = str(project.workspace.root)
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for stream in (1, 2):
            os.dup2(output, stream)
        from stella_assets.pipelines.cli import main

        sys.argv = ["stella", *arguments]
        main()
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(bool(ended.code))
    except BaseException as bug:  # noqa: BLE001 (a forked process must never go on as its parent)
        print("escaped:", repr(bug), flush=True)
        code = 70
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def wait(process: int, seconds: float) -> int | None:
    """The exit code of a process; None if it still runs after some seconds."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    return None


def kill(process: int) -> None:
    """`kill -9` a process and those that it has started."""
    os.killpg(process, signal.SIGKILL)
    os.waitpid(process, 0)


def preload() -> None:
    """Import what commands import, and start no thread."""
    from stella_assets.pipelines.environment import prepare_libraries

    prepare_libraries()
    import dagster  # noqa: F401
    import duckdb  # noqa: F401
    import lance  # noqa: F401
    import mteb  # noqa: F401
    import sentence_transformers  # noqa: F401
    import sklearn.decomposition  # noqa: F401

    import stella_assets.pipelines.cli.app
    import stella_assets.pipelines.launch  # noqa: F401


def assets() -> list[str]:
    """The steps of the graph, inputs first."""
    from stella_assets.recipe import Graph
    from stella_assets.recipe.read import parse_recipe

    return [step.name for step in Graph(parse_recipe(RECIPE, Path("kills.yaml"))).steps]
