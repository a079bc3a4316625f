"""What a contrastive finish adds to a distilled student, on questions with answers and titles with abstracts.

python -m benchmarks.contrastive settings --data FOLDER   learning rate and weight of the anchor, one seed
python -m benchmarks.contrastive compare --data FOLDER    three seeds, and sentence-transformers' own trainer

With `--scale half` on ten times the pairs: about half an hour of one core per seed. With `--scale whole` on all pairs
and whole test splits: minutes on a GPU. FOLDER holds `corpus/`, `pairs/` and `eval/`. The teacher is
all-MiniLM-L6-v2, the student three of its six layers. Both read 64 tokens. All finishes start from the same distilled
student and see the same pairs, in as many steps of as many pairs. The tests are on pairs of the test splits, and on
four public tasks that have no text in common with them.
"""

from __future__ import annotations

import logging
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import polars as pl
import typer

from benchmarks import Data, write_row
from benchmarks.training_set import MODEL
from stella_assets.core.runner import Runner
from stella_assets.core.step import BuildContext, Step, upstream
from stella_assets.evaluation.bootstrap import interval
from stella_assets.evaluation.encoders import (
    Embedder,
    EncodeRequest,
    EncoderIdentity,
    PooledStates,
    StudentEmbedder,
)
from stella_assets.evaluation.scoreboard import Scoreboard
from stella_assets.evaluation.task_scores import TaskScorer
from stella_assets.recipe import Graph, parse_recipe
from stella_assets.storage.canonical import digest
from stella_assets.storage.workspace import Workspace
from stella_assets.students import FULL, SavedStudent

app = typer.Typer(add_completion=False)
WorkspaceFolder = Annotated[Path, typer.Option(help="Where vectors, students and scores are kept between runs.")]
WORKSPACE = Path("var/benchmarks")
LOG = logging.getLogger("stella")
TOKENS = 64
OTHERS = {"query_wellformedness": "query", "wiki_split": "document", "topical_chat": "document"}
"""Sources of texts without pairs, of which the student is distilled, too."""
TASKS = {"medquad": "MedQuAD", "arxiv_title_abstract": "ArxivTitles"}
SCIFACT = "SciFact"
RETRIEVAL = (*TASKS.values(), SCIFACT)
KEPT = ("STSBenchmark", "Banking77Classification")
EVERYTHING = 10**9
RATE, ANCHOR, ANCHOR_TEXTS = 1e-4, 20, 128
"""Of the finish: the learning rate, the weight of the anchor, and texts of no pair."""
Parts = list[tuple[Any, Any]]


@dataclass(frozen=True)
class Scale:
    """How much of the data is used.

    Attributes:
        pairs: Training pairs of each source at most.
        others: Texts of each source without pairs at most.
        texts: Texts that the distillation sees.
        batch: Texts, or pairs, of a step.
        steps: Of the finish.
        documents: Answers of a task at most; the queries are those of these documents.
        distractors: Further documents of a task at most.
        scifact: Documents of SciFact that answer nothing, at most.
        queries: Of a task at most.
    """

    pairs: Mapping[str, int]
    others: int
    texts: int
    batch: int
    steps: int
    documents: int
    distractors: int
    scifact: int
    queries: int

    def robust(self) -> list[dict[str, Any]]:
        """The stages of the distillation."""
        return [
            {"method": "closed_form", "train_layers": 0, "full_head": {"cosine": 1}},
            {"train_layers": "all", "train_embeddings": False, "full_head": {"cosine": 1}, "batch_size": self.batch,
             "texts": self.texts, "learning_rate": 5e-4},
        ]  # fmt: skip

    def finish(self, rate: float = RATE, cosine: float = ANCHOR, others: int = 0) -> dict[str, Any]:
        """A contrastive stage."""
        return {
            "method": "contrastive", "train_layers": "all", "train_embeddings": False, "batch_size": self.batch,
            "steps": self.steps, "full_head": {"info_nce": 1, **({"cosine": cosine} if cosine else {})},
            "hard_negatives": 1, "anchor_texts": others, "learning_rate": rate, "checkpoint_selection": "last",
        }  # fmt: skip


SCALES = {
    "part": Scale({"medquad": 2000, "arxiv_title_abstract": 1200}, 600, 16_000, 64, 50, 600, 100, 500, 400),
    "half": Scale(dict.fromkeys(TASKS, 15_000), 6000, 48_000, 128, 220, 1500, 1500, EVERYTHING, 500),
    "whole": Scale(dict.fromkeys(TASKS, EVERYTHING), 6000, 300_000, 256, 500, *[EVERYTHING] * 4),
}
ScaleName = Annotated[Literal["part", "half", "whole"], typer.Option("--scale", help="How much of the data is used.")]


def write_sources(data: Path, folder: Path, scale: Scale) -> None:
    """The training pairs, and test splits as retrieval tasks, whose queries no training pair has.

    SciFact has all its queries and what answers them, and some of its other documents.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, task in TASKS.items():
        rows = pl.read_parquet(data / "pairs" / f"{name}.parquet")
        test = rows.filter(pl.col("split") == "test")
        train = rows.filter(pl.col("split") == "train").join(test, on="query", how="anti").sample(fraction=1, seed=0)
        used, unused = train.head(scale.pairs[name]), train.slice(scale.pairs[name])
        used.select("query", "document", "licence").write_parquet(folder / f"{name}.parquet")
        test = test.head(scale.documents)
        others = pl.concat([rows.filter(pl.col("split") == "validation"), unused]).join(used, on="document", how="anti")
        documents = pl.concat([test["document"], others["document"].head(scale.distractors)]).unique(
            maintain_order=True
        )
        numbers = {text: f"d{at}" for at, text in enumerate(documents)}
        ids = {text: f"q{at}" for at, text in enumerate(test["query"].unique(maintain_order=True).head(scale.queries))}
        # Also what a document among the others answers.
        answers = (
            pl.concat([test, others])
            .filter(pl.col("query").is_in(list(ids)), pl.col("document").is_in(list(numbers)))
            .select(
                query_id=pl.col("query").replace_strict(ids),
                doc_id=pl.col("document").replace_strict(numbers),
                score=pl.lit(1),
            )
        )
        write_task(folder / "tasks" / task, *(frame_of(texts) for texts in (numbers, ids)), answers)
    parts = {name: pl.read_parquet(data / "eval" / "SciFact" / f"{name}.parquet") for name in LAYOUT}
    answering = pl.col("id").is_in(parts["qrels"]["doc_id"].to_list())
    corpus = parts["corpus"].with_columns(pl.col("id").cast(pl.String))
    chosen = pl.concat([corpus.filter(answering), corpus.filter(~answering).head(scale.scifact)])
    write_task(folder / "tasks" / SCIFACT, chosen, parts["queries"], parts["qrels"])


LAYOUT = ("corpus", "queries", "qrels")


def frame_of(ids: Mapping[str, str]) -> pl.DataFrame:
    """Texts with their ids."""
    return pl.DataFrame({"id": list(ids.values()), "text": list(ids)})


def write_task(place: Path, *parts: pl.DataFrame) -> None:
    """Corpus, queries and qrels of a retrieval task."""
    place.mkdir(parents=True, exist_ok=True)
    for name, part in zip(LAYOUT, parts, strict=True):
        part.unique().sort(part.columns[:2]).write_parquet(place / f"{name}.parquet")


def recipe_of(data: Path, folder: Path, stages: list[dict[str, Any]], seed: int, scale: Scale) -> dict[str, Any]:
    """The recipe of the comparison, with some stages."""
    pairs = [
        {"name": name, "kind": "parquet", "path": str(folder / f"{name}.parquet"), "licence": "see the data",
         "columns": {"query": "query", "positive": "document"}}
        for name in TASKS
    ]  # fmt: skip
    others = [
        {"name": name, "kind": "parquet", "path": str(data / "corpus" / f"{name}.parquet"), "role": role,
         "licence": "see the data", "limit": scale.others}
        for name, role in OTHERS.items()
    ]  # fmt: skip
    tasks = [{"name": task, "kind": "retrieval", "path": str(folder / "tasks" / task)} for task in RETRIEVAL]
    return {
        "name": "contrastive",
        "description": "A distilled student, and a contrastive finish.",
        "seed": seed,
        "corpus": {
            "sources": [*pairs, *others],
            "clean": {"document": {"min_chars": 20, "max_chars": 3000}, "query": {"min_chars": 5}},
            "decontaminate": None,
            "dev": 0.05,
            "test": 0.0,
        },
        "teachers": [{"name": "minilm", "kind": "sentence_transformers", "model": MODEL, "max_length": TOKENS,
                      "licence": "Apache-2.0"}],
        "student": {"model": MODEL, "keep_layers": [0, 2, 4], "max_length": TOKENS, "matryoshka_dims": []},
        "stages": stages,
        "mined_negatives": {"teacher": "minilm", "per_query": 2, "random": 2},
        "evaluation": {
            "tasks": list(KEPT),
            "data": str(data / "eval"),
            "custom_tasks": [*tasks, {"name": "TrecQA", "kind": "reranking",
                                      "path": str(data / "eval" / "TrecQA_rerank.parquet")}],
        },
        "release": {"dimension": 384, "licence": "MIT", "onnx": False},
    }  # fmt: skip


class SentenceTransformerEmbedder:
    """A folder of sentence-transformers, scored like a student.

    Args:
        folder: Of the model.
    """

    dim = 384

    def __init__(self, folder: Path) -> None:
        from sentence_transformers import SentenceTransformer

        self._model = SentenceTransformer(str(folder))
        self._name = folder.name

    def identity(self) -> EncoderIdentity:
        """The settings that it was trained with."""
        return EncoderIdentity("sentence_transformers", self._name, "float32", TOKENS)

    def prompt(self, request: EncodeRequest) -> None:
        """None."""

    def embed(self, texts: Sequence[str], request: EncodeRequest) -> np.ndarray:
        """Vectors of texts."""
        return self._model.encode(list(texts), batch_size=64, show_progress_bar=False, convert_to_numpy=True)


class Comparison:
    """Students and their scores.

    Args:
        data: Folder with corpus/, pairs/ and eval/.
        workspace: Where everything is kept.
        scale: How much of the data is used.
    """

    def __init__(self, data: Path, workspace: Path, scale: str) -> None:
        self._data, self.scale = data.resolve(), SCALES[scale]
        # The longer scales share the teacher's vectors and the negatives.
        self._folder = workspace.absolute() / ("contrastive" if scale == "part" else "contrastive_whole")
        self.runner = Runner(Workspace(self._folder), LOG)
        write_sources(self._data, self._folder / "sources", self.scale)

    def graph(self, seed: int, *further: dict[str, Any], **more: Any) -> Graph:
        """The recipe with `robust` and further stages, and more of its keys."""
        stages = [*self.scale.robust(), *further]
        raw = {**recipe_of(self._data, self._folder / "sources", stages, seed, self.scale), **more}
        return Graph(parse_recipe(raw, self._folder / "contrastive.yaml"))

    def make(self, *steps: Step[Any]) -> None:
        """Make steps and all that they depend on."""
        for step in upstream(*steps):
            self.runner.make(step, link=False)

    def student(self, graph: Graph) -> SavedStudent:
        """The student after the last stage."""
        self.make(graph.stages[-1])
        found: SavedStudent = self.runner.read(graph.stages[-1])
        return found

    def peer(self, seed: int, rate: float) -> Path:
        """The distilled student after `MultipleNegativesRankingLoss` on the same pairs, with hard negatives."""
        from datasets import Dataset
        from sentence_transformers import (
            SentenceTransformer,
            SentenceTransformerTrainer,
            SentenceTransformerTrainingArguments,
        )
        from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

        graph = self.graph(seed)
        start = self.student(graph).folder
        folder = self._folder / "peers" / digest([str(start.resolve()), rate, self.scale.steps, seed])
        if (folder / "modules.json").exists():
            return folder
        assert graph.pairs is not None
        assert graph.mined_negatives is not None
        self.make(graph.pairs, graph.mined_negatives)
        texts = pl.DataFrame(self.runner.read(graph.corpus).table(["id", "text"]))
        text_of = dict(zip(texts["id"], texts["text"], strict=True))
        pairs = self.runner.read(graph.pairs).pairs().filter(pl.col("split") == "train")
        mined = self.runner.read(graph.mined_negatives).negatives().filter(pl.col("rank") == 1)
        rows = pairs.join(mined.select("query", "negative"), on="query").sort("query", "positive")
        dataset = Dataset.from_dict(
            {
                "anchor": [text_of[key] for key in rows["query"]],
                "positive": [text_of[key] for key in rows["positive"]],
                "negative": [text_of[key] for key in rows["negative"]],
            }
        )
        device = self.runner.compute.device
        model = SentenceTransformer(str(start), device=str(device))
        arguments = SentenceTransformerTrainingArguments(
            output_dir=str(folder / "trainer"), max_steps=self.scale.steps, learning_rate=rate, seed=seed,
            per_device_train_batch_size=self.scale.batch, use_cpu=device.type == "cpu", report_to=[],
            save_strategy="no", logging_strategy="no", disable_tqdm=True, warmup_steps=0.1,
            bf16=self.runner.compute.dtype("auto") == "bfloat16",
        )  # fmt: skip
        loss = MultipleNegativesRankingLoss(model)
        SentenceTransformerTrainer(model=model, args=arguments, train_dataset=dataset, loss=loss).train()
        model.save(str(folder))
        return folder

    def score(self, name: str, embedder: Embedder, graph: Graph) -> tuple[Any, Any]:
        """Rows and samples of a model."""
        self.make(graph.tasks)
        context = BuildContext(
            "", "", self._folder, self._folder, {}, self.runner.workspace, LOG, self.runner.compute, runner=self.runner
        )
        scores = []
        for task in self.runner.read(graph.tasks).open():
            scorer = TaskScorer("contrastive", task, context)
            scores.append(scorer.score(name, embedder))
            scorer.close()
        rows = pl.DataFrame([score.row for score in scores])
        print(name, {row["task"]: round(100 * row["score"], 2) for row in rows.to_dicts()}, flush=True)
        return rows, pl.concat([pl.DataFrame(pl.from_arrow(part)) for score in scores for part in score.samples])

    def score_stages(self, name: str, seed: int, *further: dict[str, Any]) -> tuple[Any, Any]:
        """Rows and samples of the student after `robust` and further stages."""
        graph = self.graph(seed, *further)
        student = self.student(graph).load(self.runner.compute)
        return self.score(name, StudentEmbedder(PooledStates(student, self.runner.workspace), FULL, {}), graph)


def board_of(parts: Parts) -> Scoreboard:
    """Scores and samples of several models."""
    rows = pl.concat([rows for rows, _ in parts])
    samples = {rows["model"][0]: samples for rows, samples in parts}
    return Scoreboard(rows.to_dicts(), samples, rows["model"].unique(maintain_order=True).to_list())


def compared(board: Scoreboard, names: Sequence[str], seeds: Iterable[int], base: str) -> dict[str, Any]:
    """Means over seeds by task, and the difference to one of them, with 95% intervals of paired resamples."""
    groups = {"retrieval": list(RETRIEVAL), **{task: [task] for task in (*RETRIEVAL, "TrecQA", *KEPT)}}

    def of(name: str, tasks: list[str]) -> tuple[list[float], np.ndarray]:
        models = [board.full(f"{name}/{seed}") for seed in seeds]
        resampled = np.mean([board.resampled_means(model, tasks) for model in models], axis=0)
        return [100 * board.mean(model, tasks) for model in models], 100 * resampled

    rows: dict[str, Any] = {}
    for name in names:
        rows[name] = {}
        for group, tasks in groups.items():
            (values, values_R), (others, others_R) = of(name, tasks), of(base, tasks)
            low, high = interval(values_R - others_R)
            rows[name][group] = {
                "score": round(statistics.mean(values), 2),
                "seeds": [round(value, 2) for value in values],
                "difference": round(statistics.mean(values) - statistics.mean(others), 2),
                "95%": [round(low, 2), round(high, 2)],
            }
    return rows


@app.command()
def settings(data: Data, workspace: WorkspaceFolder = WORKSPACE, seed: int = 0, scale: ScaleName = "part") -> None:
    """Learning rates, and weights and further texts of the anchor; one seed."""
    run = Comparison(data, workspace, scale)
    finish = run.scale.finish
    variants: Mapping[str, list[dict[str, Any]]] = {
        "robust": [],
        "rate 1e-4, anchor 5": [finish(1e-4, 5)],
        "rate 3e-5, anchor 5": [finish(3e-5, 5)],
        "rate 1e-4, no anchor": [finish(1e-4, 0)],
        "rate 1e-4, anchor 20": [finish(1e-4, 20)],
        "rate 1e-4, anchor 10": [finish(1e-4, 10)],
        "rate 1e-4, anchor 10, as many other texts": [finish(1e-4, 10, run.scale.batch)],
    }
    parts = [run.score_stages(f"{name}/{seed}", seed, *stages) for name, stages in variants.items()]
    rows = compared(board_of(parts), list(variants), [seed], "robust")
    write_row("contrastive_settings", {"scale": asdict(run.scale), "scores": rows})


@app.command()
def compare(
    data: Data,
    workspace: WorkspaceFolder = WORKSPACE,
    seeds: int = 3,
    rate: float = RATE,
    anchor: float = ANCHOR,
    anchor_texts: int = ANCHOR_TEXTS,
    scale: ScaleName = "part",
    peer: Annotated[bool, typer.Option(help="Train by sentence-transformers, too.")] = True,
) -> None:
    """`robust` alone, with a contrastive finish, and with sentence-transformers' trainer in its place."""
    run = Comparison(data, workspace, scale)
    parts: Parts = []
    names = ["robust", "robust, contrastive", *(["robust, MultipleNegativesRankingLoss"] if peer else [])]
    for seed in range(seeds):
        parts.append(run.score_stages(f"{names[0]}/{seed}", seed))
        parts.append(run.score_stages(f"{names[1]}/{seed}", seed, run.scale.finish(rate, anchor, anchor_texts)))
        if peer:
            trained = SentenceTransformerEmbedder(run.peer(seed, rate))
            parts.append(run.score(f"{names[2]}/{seed}", trained, run.graph(seed)))
        board, chosen = board_of(parts), range(seed + 1)
        # After each seed: a benchmark that is stopped has said what it knows.
        write_row(
            "contrastive",
            {
                "scale": asdict(run.scale),
                "device": run.runner.compute.describe(),
                "rate": rate,
                "anchor": anchor,
                "anchor_texts": anchor_texts,
                "over robust": compared(board, names, chosen, "robust"),
                **({"over sentence-transformers": compared(board, names[1:2], chosen, names[2])} if peer else {}),
            },
        )


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    app()
