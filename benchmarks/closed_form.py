"""Stage 1 in closed form compared with 4,000 steps of descent, with the published losses, on the same texts.

python -m benchmarks.closed_form --data FOLDER [--texts 9000]

Descent runs at the published learning rate and at higher ones. The encoder is frozen, so the loop computes its states
once per text; the published code computes them for each batch.
"""

import shutil
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer

from benchmarks import Texts, write_row
from benchmarks.training_set import prepare
from stella_assets.storage.workspace import Workspace
from stella_assets.training.frozen import frozen_states
from stella_assets.training.loop import train
from stella_assets.training.stages.closed_form import ClosedForm
from stella_assets.training.stages.descent import Descent

PUBLISHED = {"cosine": 10, "similarity": 200, "relative_similarity": 20}
RATES = (1e-4, 1e-3, 2e-3, 4e-3)
BATCH = 128


def main(
    data: Texts,
    workspace: Annotated[Path, typer.Option(help="Where vectors are kept between runs.")] = Path("var/benchmarks"),
    texts: int = 9_000,
    steps: int = 4000,
) -> None:
    """Fit in closed form, then descend at each rate, and compare dev losses and seconds."""
    training_set = prepare(data, texts, Workspace(workspace.absolute()))
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        started = time.monotonic()
        context = training_set.context("closed_form", training_set.student(), scratch)
        fitted = ClosedForm.model_validate({"full_head": PUBLISHED}).run(context)
        seconds = {"closed_form": time.monotonic() - started}
        losses = {"closed_form": fitted.log[-1]["value"]}
        started = time.monotonic()
        frozen_states(training_set.student(), training_set.data["train"], scratch / "pooled.npy")
        encoding = time.monotonic() - started
        for rate in RATES:
            stage = Descent.model_validate(
                {"train_layers": 0, "full_head": PUBLISHED, "batch_size": BATCH, "steps": steps, "learning_rate": rate,
                 "checkpoint_every": 500}
            )  # fmt: skip
            name = f"descent {rate:g}"
            started = time.monotonic()
            trained = train(stage, training_set.context(name, training_set.student(), scratch))
            seconds[name] = encoding + time.monotonic() - started
            losses[name] = min(r["value"] for r in trained.log if (r["split"], r["term"]) == ("dev", "total"))
            shutil.rmtree(scratch / "checkpoints")
    published = f"descent {RATES[0]:g}"
    descent = seconds[published] - encoding
    texts_read = len(training_set.data["train"])
    encoding_each_batch = descent + encoding * steps * BATCH / texts_read
    write_row(
        "closed_form",
        {
            "texts": texts_read,
            "dev_loss": {name: round(loss, 4) for name, loss in losses.items()},
            "seconds": {name: round(value, 1) for name, value in seconds.items()},
            "seconds_of_the_frozen_encoder": round(encoding, 1),
            "share_of_descent_beyond_the_encoder": round(max(0.0, seconds["closed_form"] - encoding) / descent, 4),
            "share_of_descent_that_encodes_each_batch": round(seconds["closed_form"] / encoding_each_batch, 4),
        },
    )
    assert losses["closed_form"] <= losses[published], "descent as published reached a lower dev loss"
    assert seconds["closed_form"] <= 0.02 * encoding_each_batch, "fitting took more than 2% of the time of descent"


if __name__ == "__main__":
    typer.run(main)
