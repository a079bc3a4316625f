"""Training compared with SentenceTransformerTrainer and EmbedDistillLoss: same student, texts, batches, dtype, loss.

python -m benchmarks.training --data FOLDER [--texts 6400] [--repeats 3]

All train everything for one epoch with the cosine loss against stored vectors of all-MiniLM-L6-v2, through a linear
map of 384 dimensions, in bfloat16 where the processor computes in it, alternating. sentence-transformers trains twice:
with its own random batches, and with batches of texts of similar length, which a user can give it as a sampler.
"""

import logging
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from benchmarks import Texts, write_row
from benchmarks.training_set import TrainingSet, prepare
from stella_assets.storage.workspace import Workspace
from stella_assets.students import FULL
from stella_assets.students.dense.model import DenseStudent
from stella_assets.training.loop import train
from stella_assets.training.stages.descent import Descent

BATCH = 64


def ours(training_set: TrainingSet, texts: int, folder: Path) -> tuple[float, float]:
    """Texts per second, and the share of the time that was spent waiting for vectors and tokens."""
    stage = Descent.model_validate(
        {"train_layers": "all", "full_head": {"cosine": 1}, "batch_size": BATCH, "texts": texts, "learning_rate": 3e-4,
         "checkpoint_every": 10**9, "checkpoint_selection": "last"}
    )  # fmt: skip
    folder.mkdir()
    trained = train(stage, training_set.context("ours", training_set.student(), folder, texts))
    return trained.texts_per_second, trained.waiting


def embed_distill(
    training_set: TrainingSet, texts: int, rate: float, seed: int, folder: Path, *, by_length: bool = False
) -> tuple[DenseStudent, float]:
    """The student after one epoch with sentence-transformers, and the seconds it took."""
    import torch
    from datasets import Dataset
    from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
    from sentence_transformers.sentence_transformer.losses import EmbedDistillLoss

    torch.manual_seed(seed)
    student = training_set.student(seed)
    data = training_set.data["train"].first(texts)
    rows = data.snapshot.take(data.rows, ["text"])["text"]
    labels = data.targets(np.arange(len(data))).vectors.numpy()
    dataset = Dataset.from_dict({"text": rows, "label": list(labels)})
    dataset.set_format("torch", columns=["label"], output_all_columns=True)
    backbone: Any = student.backbone
    backbone.requires_grad_(True)
    loss = EmbedDistillLoss(backbone, distance_metric="cosine", projection_dim=labels.shape[1])
    arguments = SentenceTransformerTrainingArguments(
        output_dir=str(folder), num_train_epochs=1, per_device_train_batch_size=BATCH, learning_rate=rate,
        bf16=student.dtype == "bfloat16", use_cpu=training_set.compute.device.type == "cpu", report_to=[],
        save_strategy="no", logging_strategy="no", disable_tqdm=True, seed=seed, warmup_steps=0.1,
        **({"batch_sampler": of_similar_length(np.asarray(data.lengths), seed)} if by_length else {}),
    )  # fmt: skip
    trainer = SentenceTransformerTrainer(model=backbone, args=arguments, train_dataset=dataset, loss=loss)
    started = time.monotonic()
    trainer.train()
    seconds = time.monotonic() - started
    projection: Any = loss.projection
    with torch.no_grad():
        student.head(FULL).set(projection.weight, projection.bias)
    return student.eval(), seconds


def of_similar_length(lengths: np.ndarray, seed: int) -> Any:
    """A sampler for sentence-transformers: batches of texts of similar length, in random order."""
    from sentence_transformers.base.sampler import DefaultBatchSampler

    class BySimilarLength(DefaultBatchSampler):
        def __iter__(self) -> Iterator[list[int]]:
            rng = np.random.default_rng(seed)
            # Ties at random, so that equal lengths do not always share a batch.
            order = np.lexsort((rng.random(len(lengths)), lengths))
            for start in rng.permutation(np.arange(0, len(order), self.batch_size)):
                yield order[start : start + self.batch_size].tolist()

    return BySimilarLength


def theirs(training_set: TrainingSet, texts: int, folder: Path, *, by_length: bool) -> float:
    """Texts per second of sentence-transformers."""
    _, seconds = embed_distill(training_set, texts, 3e-4, 0, folder, by_length=by_length)
    return min(texts, len(training_set.data["train"])) / seconds


def main(
    data: Texts,
    workspace: Annotated[Path, typer.Option(help="Where vectors are kept between runs.")] = Path("var/benchmarks"),
    texts: Annotated[int, typer.Option(help="Texts to train on.")] = 6400,
    corpus_texts: Annotated[int, typer.Option(help="Texts of the corpus that they are taken from.")] = 50_000,
    repeats: int = 3,
) -> None:
    """Train with one and the other, several times."""
    logging.getLogger("transformers").setLevel(logging.ERROR)
    training_set = prepare(data, corpus_texts, Workspace(workspace.absolute()))
    speeds: dict[str, list[float]] = {"ours": [], "theirs": [], "theirs_by_length": [], "waiting": []}
    with tempfile.TemporaryDirectory() as folder:
        for repeat in range(repeats):
            speed, waiting = ours(training_set, texts, Path(folder) / f"ours_{repeat}")
            speeds["ours"].append(speed)
            speeds["waiting"].append(waiting)
            for name, by_length in (("theirs", False), ("theirs_by_length", True)):
                place = Path(folder) / f"{name}_{repeat}"
                speeds[name].append(theirs(training_set, texts, place, by_length=by_length))
            print({name: round(values[-1], 3) for name, values in speeds.items()}, flush=True)
    ratios = {
        name: statistics.median(a / b for a, b in zip(speeds["ours"], speeds[name], strict=True))
        for name in ("theirs", "theirs_by_length")
    }
    lengths = training_set.data["train"].first(texts).lengths
    write_row(
        "training",
        {
            "texts": texts,
            "median_tokens": int(np.median(lengths)),
            "mean_tokens": round(float(lengths.mean()), 1),
            "texts_per_second": round(statistics.median(speeds["ours"]), 1),
            "sentence_transformers_texts_per_second": round(statistics.median(speeds["theirs"]), 1),
            "ratio": round(ratios["theirs"], 2),
            "sentence_transformers_by_length_texts_per_second": round(statistics.median(speeds["theirs_by_length"]), 1),
            "ratio_by_length": round(ratios["theirs_by_length"], 2),
            "share_of_time_waiting_for_data": round(max(speeds["waiting"]), 4),
        },
    )
    assert min(ratios.values()) >= 1, "slower than sentence-transformers"
    assert max(speeds["waiting"]) < 0.05, "5% or more of the time went into waiting for data"


if __name__ == "__main__":
    typer.run(main)
