"""Stage 1 in closed form against 4,000 steps of descent, with the published losses, on the same texts.

python -m benchmarks.solve --data FOLDER [--texts 50000]

Descent runs at the published learning rate and at those that suit this student better; its states are worked out once
(the encoder is frozen), which the published code does not do.
"""

import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer

from benchmarks import write_row
from benchmarks.lesson import make_stage, prepare
from stella_assets.training.loop import train_stage
from stella_assets.training.solve import solve_stage
from storage.home import Home

PUBLISHED = {"cosine": 10, "similarity": 200, "relative_similarity": 20}
RATES = (1e-4, 1e-3, 2e-3, 4e-3)


def main(
    data: Annotated[Path, typer.Option(help="Folder of Parquet files with texts.")],
    home: Annotated[Path, typer.Option(help="Where vectors are kept between runs.")] = Path("var/benchmarks"),
    texts: int = 50_000,
    steps: int = 4000,
) -> None:
    """Solve, then descend at each rate, and compare dev losses and seconds."""
    lesson = prepare(data, texts, Home(home.absolute()))
    frozen = {"train_layers": 0, "teacher_head": PUBLISHED}
    started = time.monotonic()
    solved = solve_stage(lesson.student(), make_stage(method="solve", **frozen), "solve", lesson.data)
    seconds = {"solve": time.monotonic() - started}
    losses = {"solve": solved.log[-1]["value"]}
    pooled = 0.0
    with tempfile.TemporaryDirectory() as folder:
        for rate in RATES:
            scratch = Path(folder) / str(rate)
            scratch.mkdir()
            stage = make_stage(**frozen, batch_texts=128, steps=steps, learning_rate=rate, checkpoint_every=500)
            started = time.monotonic()
            trained = train_stage(lesson.student(), stage, f"descend {rate:g}", lesson.data, 0, scratch, print)
            name = f"descend {rate:g}"
            seconds[name] = time.monotonic() - started
            pooled = max(pooled, seconds[name] - trained.steps * 128 / trained.texts_per_second)
            losses[name] = min(r["value"] for r in trained.log if (r["split"], r["term"]) == ("dev", "total"))
    published = f"descend {RATES[0]:g}"
    encoding = pooled  # both read every text once; descent without a cache would read each of its 512,000
    uncached = seconds[published] - encoding + encoding * steps * 128 / len(lesson.data["train"])
    write_row(
        "solve",
        {
            "texts": len(lesson.data["train"]),
            "dev_loss": {name: round(loss, 4) for name, loss in losses.items()},
            "seconds": {name: round(value, 1) for name, value in seconds.items()},
            "seconds_of_reading_all_texts_once": round(encoding, 1),
            "share_of_the_time_of_descent_beyond_reading": round(
                max(0.0, seconds["solve"] - encoding) / (seconds[published] - encoding), 4
            ),
            "share_of_the_time_of_descent_that_reads_every_text_it_sees": round(seconds["solve"] / uncached, 4),
        },
    )
    assert losses["solve"] <= min(losses.values()), "descent reached a lower dev loss"


if __name__ == "__main__":
    typer.run(main)
