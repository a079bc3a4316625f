"""Stage 1 in closed form against 4,000 steps of descent, with the published losses, on the same texts.

python -m benchmarks.solve --data FOLDER [--texts 9000]

Descent runs at the published learning rate and at higher ones. The encoder is frozen, so our loop works out its states
once for each text; the published code does for each batch.
"""

import shutil
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer
from storage.workspace import Workspace

from benchmarks import write_row
from benchmarks.lesson import make_stage, prepare
from stella_assets.training.frozen import frozen_states
from stella_assets.training.loop import train_stage
from stella_assets.training.solve import solve_stage

PUBLISHED = {"cosine": 10, "similarity": 200, "relative_similarity": 20}
RATES = (1e-4, 1e-3, 2e-3, 4e-3)


def main(
    data: Annotated[Path, typer.Option(help="Folder of Parquet files with texts.")],
    workspace: Annotated[Path, typer.Option(help="Where vectors are kept between runs.")] = Path("var/benchmarks"),
    texts: int = 9_000,
    steps: int = 4000,
) -> None:
    """Solve, then descend at each rate, and compare dev losses and seconds."""
    lesson = prepare(data, texts, Workspace(workspace.absolute()))
    frozen = {"train_layers": 0, "full_head": PUBLISHED}
    started = time.monotonic()
    solved = solve_stage(lesson.student(), make_stage(method="closed_form", **frozen), "solve", lesson.data)
    seconds = {"solve": time.monotonic() - started}
    losses = {"solve": solved.log[-1]["value"]}
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        started = time.monotonic()
        frozen_states(lesson.student(), lesson.data["train"], scratch / "pooled.npy")
        reading = time.monotonic() - started
        for rate in RATES:
            stage = make_stage(**frozen, batch_size=128, steps=steps, learning_rate=rate, checkpoint_every=500)
            name = f"descend {rate:g}"
            started = time.monotonic()
            trained = train_stage(lesson.student(), stage, name, lesson.data, 0, scratch, print)
            seconds[name] = reading + time.monotonic() - started
            losses[name] = min(r["value"] for r in trained.log if (r["split"], r["term"]) == ("dev", "total"))
            shutil.rmtree(scratch / "checkpoints")
    descent = seconds[f"descend {RATES[0]:g}"] - reading
    texts_read = len(lesson.data["train"])
    uncached = descent + reading * steps * 128 / texts_read
    write_row(
        "solve",
        {
            "texts": texts_read,
            "dev_loss": {name: round(loss, 4) for name, loss in losses.items()},
            "seconds": {name: round(value, 1) for name, value in seconds.items()},
            "seconds_of_the_frozen_encoder": round(reading, 1),
            "share_of_descent_beyond_the_encoder": round(max(0.0, seconds["solve"] - reading) / descent, 4),
            "share_of_descent_that_encodes_each_batch": round(seconds["solve"] / uncached, 4),
        },
    )
    assert losses["solve"] <= losses[f"descend {RATES[0]:g}"], "descent as published reached a lower dev loss"
    assert seconds["solve"] <= 0.02 * uncached, "solving took more than 2% of the time of descent"


if __name__ == "__main__":
    typer.run(main)
