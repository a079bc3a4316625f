"""Reading batches for training: `SnapshotDataset`, plain Lance `take`, and the label column of sentence-transformers.

    python -m benchmarks.training_reads [--rows 6000]

Batches of 128 texts at random with 12,288 dimensions of two teachers. Ours gives ids, texts, roles and one contiguous
float16 block; plain Lance takes the vector columns and nothing else; sentence-transformers reads a `datasets` table
with a `label` column through its own collator, as its trainer does.
"""

import statistics
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import typer

from benchmarks import write_row
from benchmarks.snapshot_layout import random_block
from stella_assets.corpus.text import text_id
from stella_assets.storage.workspace import Workspace
from stella_assets.teachers.snapshot import VECTOR, Snapshot
from stella_assets.teachers.snapshot_writer import SnapshotWriter, TeacherColumn
from stella_assets.training.read_ahead import READ_TOGETHER
from stella_assets.training.snapshot_batches import SnapshotDataset
from stella_assets.training.snapshot_reference import SnapshotReference
from tests.snapshots import MemoryTexts

DIMS = {"a": 4096, "b": 8192}
BATCH = 128
RECIPE = "benchmark"


def synthetic_vectors(dim: int, ids: list[str], _roles: list[str]) -> np.ndarray:
    return random_block(len(ids), dim, int(ids[0][:6], 16))


def write_snapshot(workspace: Workspace, rows: int) -> Snapshot:
    texts = [f"text number {i} of some words, as long as a sentence is in the middle" for i in range(rows)]
    row = {"source": "s", "section": "s", "role": "document", "split": "train"}
    corpus = MemoryTexts([{"id": text_id(text), "text": text, **row} for text in texts])
    columns = [TeacherColumn(name, dim, 1.0, {}, partial(synthetic_vectors, dim)) for name, dim in DIMS.items()]
    SnapshotWriter(workspace, RECIPE, unit_rows=2048).write("one", corpus, columns, {})
    return Snapshot.open(workspace, RECIPE, "one")


def label_batches(snapshot: Snapshot, folder: Path) -> Iterator[Any]:
    """Batches as the trainer of sentence-transformers gets them from a data set on disk."""
    import datasets
    from sentence_transformers.sentence_transformer.data_collator import SentenceTransformerDataCollator
    from torch.utils.data import DataLoader

    def generate() -> Iterator[dict[str, Any]]:
        for start in range(0, len(snapshot), 512):
            rows = np.arange(start, min(start + 512, len(snapshot)))
            columns, block = snapshot.read(rows, ["text"])
            for text, vector in zip(columns["text"], block, strict=True):
                yield {"sentence": text, "label": vector.astype(np.float32)}

    datasets.disable_progress_bars()
    features = datasets.Features(
        {"sentence": datasets.Value("string"), "label": datasets.List(datasets.Value("float32"))}
    )
    table = datasets.Dataset.from_generator(generate, features=features, cache_dir=str(folder))
    collator = SentenceTransformerDataCollator(preprocess_fn=lambda texts, **_: {"texts": texts})
    yield from DataLoader(table, batch_size=BATCH, shuffle=True, collate_fn=collator, drop_last=True)


def seconds_per_batch(batches: Iterator[Any], count: int) -> tuple[float, Any]:
    """Mean over `count` batches in a row, after some that warm up and use what was read ahead."""
    for _ in range(READ_TOGETHER):
        next(batches)
    started = time.perf_counter()
    for _ in range(count):
        batch = next(batches)
    return (time.perf_counter() - started) / count, batch


def main(rows: int = 6000, repeats: int = 5) -> None:
    """Read some batches of each, alternating, and compare medians."""
    with tempfile.TemporaryDirectory() as root:
        workspace = Workspace(Path(root))
        snapshot = write_snapshot(workspace, rows)
        ours = iter(SnapshotDataset(SnapshotReference(workspace, RECIPE, "one"), "train", BATCH, 0, 0, 10_000))
        labels = label_batches(snapshot, Path(root) / "datasets")
        random = np.random.default_rng(0)

        def lance_batches() -> Iterator[Any]:
            names = [VECTOR + name for name in DIMS]
            while True:
                chosen = random.choice(rows, BATCH, replace=False)
                yield snapshot.dataset.take(chosen, columns=names)

        sources = {"ours": ours, "lance_take": lance_batches(), "label_column": labels}
        seconds: dict[str, list[float]] = {name: [] for name in sources}
        for _ in range(repeats):
            for name, batches in sources.items():
                spent, batch = seconds_per_batch(batches, 4 if name == "label_column" else 32)
                seconds[name].append(spent)
                block = {"ours": lambda b: b.vectors_BD, "label_column": lambda b: b["label"]}.get(name)
                assert block is None or tuple(block(batch).shape) == (BATCH, sum(DIMS.values()))
    median = {name: statistics.median(values) for name, values in seconds.items()}
    write_row(
        "training_reads",
        {
            "rows": rows,
            "dims": sum(DIMS.values()),
            "batch": BATCH,
            "milliseconds_per_batch": {name: round(1000 * value, 2) for name, value in median.items()},
            "rows_per_second": {name: round(BATCH / value) for name, value in median.items()},
            "over_label_column": round(median["label_column"] / median["ours"], 1),
            "over_lance_take": round(median["lance_take"] / median["ours"], 2),
        },
    )


if __name__ == "__main__":
    typer.run(main)
