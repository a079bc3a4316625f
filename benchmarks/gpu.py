"""Speed on a GPU: training a student of 435 million parameters at 512 tokens, and the losses of 4,096 texts.

python -m benchmarks.gpu training [--batch 64] [--peak-tflops 989]
python -m benchmarks.gpu losses [--batch 4096] [--heads 8]

The student is a BERT with random weights, the texts are random words; what is measured does not depend on either. The
peak to compare with is the device's dense bfloat16 rate, by default that of an H100.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import typer

from benchmarks import write_row
from benchmarks.training_set import MODEL, TrainingSet, prepare
from stella_assets.core.config import ModelSource
from stella_assets.core.models import load_tokenizer
from stella_assets.storage.workspace import Workspace
from stella_assets.students import FULL
from stella_assets.training.head_losses import HeadLosses
from stella_assets.training.loop import train
from stella_assets.training.losses import LOSSES
from stella_assets.training.objective import Objective, stage_loss
from stella_assets.training.stages.descent import Descent
from stella_assets.training.targets import Spread, Targets

app = typer.Typer(add_completion=False)
TOKENS = 512
TEXTS = 4096
SHAPE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 6144}
STEPS = (20, 120)
"""A stage is timed with both, and the difference divided by the steps between: what a stage costs once cancels."""


@app.command()
def training(batch: int = 64, peak_tflops: float = 989.0, *, gradient_checkpointing: bool = False) -> None:
    """Texts per second, memory, and share of the device's peak."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write_texts(folder / "texts")
        _write_student(folder / "student")
        student = {"model": str(folder / "student"), "max_length": TOKENS, "matryoshka_dims": []}
        workspace = Workspace(folder / "workspace")
        training_set = prepare(folder / "texts", TEXTS, workspace, max_length=TOKENS, max_chars=10**5, student=student)
        stage = {"batch_size": batch, "gradient_checkpointing": gradient_checkpointing}
        runs = [_train(training_set, steps, stage, folder / str(steps)) for steps in STEPS]
    (fewer, _), (more, parameters) = runs
    texts_per_second = (STEPS[1] - STEPS[0]) * batch / (more - fewer)
    tokens = float(training_set.data["train"].lengths.mean())
    layers, hidden = SHAPE["num_hidden_layers"], SHAPE["hidden_size"]
    # Forward and backward: 6 operations per weight and token, and 12 per layer, hidden dimension and pair of tokens.
    operations = tokens * (6 * parameters["in_products"] + 12 * layers * hidden * tokens)
    write_row(
        "gpu_training",
        {
            "device": torch.cuda.get_device_name(),
            "parameters": parameters["all"],
            "batch": batch,
            "gradient_checkpointing": gradient_checkpointing,
            "mean_tokens": tokens,
            "texts_per_second": round(texts_per_second, 1),
            "tokens_per_second": round(texts_per_second * tokens),
            "peak_memory_gib": round(torch.cuda.max_memory_allocated() / 2**30, 1),
            "share_of_peak": round(texts_per_second * operations / (peak_tflops * 1e12), 3),
        },
    )


def _write_texts(folder: Path) -> None:
    """Texts of more words than the student reads."""
    folder.mkdir()
    draw = np.random.default_rng(0)
    words = np.array(["river", "stone", "window", "letter", "garden", "number", "music", "paper", "winter", "market"])
    texts = [" ".join(draw.choice(words, TOKENS + 20)) for _ in range(round(TEXTS / 0.95) + 200)]
    pq.write_table(pa.table({"text": texts, "licence": ["CC0-1.0"] * len(texts)}), folder / "words.parquet")


def _write_student(folder: Path) -> None:
    """A BERT with random weights and the tokenizer of all-MiniLM-L6-v2."""
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    shape: dict[str, Any] = {"vocab_size": 30528, "max_position_embeddings": TOKENS, **SHAPE}
    BertModel(BertConfig(**shape)).save_pretrained(folder)
    load_tokenizer(ModelSource(model=MODEL)).save_pretrained(folder)


def _train(
    training_set: TrainingSet, steps: int, settings: dict[str, Any], scratch: Path
) -> tuple[float, dict[str, int]]:
    """Seconds of a stage, and the student's parameters: all, and those that take part in matrix products."""
    scratch.mkdir()
    stage = Descent.model_validate(
        {"train_layers": "all", "full_head": {"cosine": 1}, "steps": steps, "learning_rate": 1e-5,
         "checkpoint_every": 10**9, "checkpoint_selection": "last", **settings}
    )  # fmt: skip
    student = training_set.student()
    sizes = {name: parameter.numel() for name, parameter in student.named_parameters()}
    torch.cuda.reset_peak_memory_stats()
    started = time.monotonic()
    train(stage, training_set.context("gpu", student, scratch))
    seconds = time.monotonic() - started
    idle = sum(size for name, size in sizes.items() if "embeddings" in name or "pooler" in name)
    return seconds, {"all": sum(sizes.values()), "in_products": sum(sizes.values()) - idle}


@app.command()
def losses(batch: int = 4096, heads: int = 8, dim: int = 1024, repeats: int = 5) -> None:
    """Seconds and memory of each loss, forward and backward, of all heads."""
    draw = torch.Generator("cuda").manual_seed(0)
    teacher = torch.nn.functional.normalize(torch.randn(batch, dim, generator=draw, device="cuda"), dim=1)
    near = [
        torch.nn.functional.normalize(teacher + 0.05 * torch.randn(batch, dim, generator=draw, device="cuda"), dim=1)
        for _ in range(heads)
    ]
    targets = Targets([teacher], [1.0])

    def form(name: str) -> Callable[[torch.Tensor], torch.Tensor]:
        objective = Objective(HeadLosses.model_validate({name: 1}))
        return lambda x: stage_loss(objective, {FULL: x}, targets, Spread(1.0, 1.0)).total

    form("similarity")(near[0])  # the teachers' Gram matrix is computed once
    # Losses of pairs need a stage that reads them.
    names = [name for name in LOSSES.names() if LOSSES.get(name).compares != "pairs"]
    rows = {name: _time(form(name), near, repeats) for name in names}
    write_row("gpu_losses", {"device": torch.cuda.get_device_name(), "batch": batch, "heads": heads, "losses": rows})


def _time(form: Callable[[torch.Tensor], torch.Tensor], near: list[torch.Tensor], repeats: int) -> dict[str, float]:
    seconds = []
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    for _ in range(repeats + 1):
        leaves = [x.clone().requires_grad_() for x in near]
        torch.cuda.synchronize()
        started = time.perf_counter()
        torch.stack([form(x) for x in leaves]).sum().backward()
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    extra = torch.cuda.max_memory_allocated() - before
    return {"milliseconds": round(1000 * statistics.median(seconds[1:]), 2), "extra_mib": round(extra / 2**20)}


if __name__ == "__main__":
    if not torch.cuda.is_available():
        sys.exit("This benchmark needs a CUDA device.")
    app()
