"""A loss of your own: one class, whose name becomes a key of `full_head` in every recipe.

Run it with `python examples/own_loss.py`. To use a loss in every recipe, put it into a package:
examples/third_party_package.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from stella_assets.pipelines.environment import prepare_libraries
from stella_assets.storage.workspace import Workspace
from stella_assets.training.losses.base import LOSSES, LossConfig

if TYPE_CHECKING:
    from torch import Tensor

    from stella_assets.training.targets import Spread

HERE = Path(__file__).parent


@LOSSES.register
class Huber(LossConfig):
    """Mean Huber distance of the entries: squared where it is small, linear where it is large."""

    loss: Literal["huber"] = Field("huber", exclude=True)
    delta: float = Field(0.1, gt=0, description="difference at which it changes from squared to linear")

    def value(self, student: Tensor, teacher: Tensor, spread: Spread) -> Tensor:
        """Of the vectors `[B, D]` of a batch, the mean over texts of the sum over dimensions."""
        from torch.nn.functional import huber_loss

        return huber_loss(student, teacher, reduction="none", delta=self.delta).sum(dim=1).mean()

    def scale(self, spread: Spread) -> float:
        """The cosine distance of the best constant answer."""
        return spread.distance


def main(folder: Path) -> None:
    """Train a head with the loss."""
    from stella_assets.core.runner import Runner  # recipes know all kinds that were registered before
    from stella_assets.core.step import upstream
    from stella_assets.recipe import Graph, parse_recipe, read_raw

    prepare_libraries()
    raw = read_raw(HERE / "small.yaml")
    raw["stages"] = [
        {
            "method": "descent",
            "train_layers": 0,
            "full_head": {"huber": {"weight": 10, "delta": 0.2}, "cosine": 1},
            "batch_size": 32,
            "steps": 20,
            "learning_rate": 0.002,
        }
    ]
    graph = Graph(parse_recipe(raw, HERE / "small.yaml"))
    runner = Runner(Workspace(folder), logging.getLogger("example"))
    for step in upstream(graph.stages[-1]):
        runner.make(step)

    import polars as pl

    log = pl.read_parquet(runner.require(graph.stages[-1]).folder / "training_log.parquet")
    print("dev loss:", log.filter((pl.col("split") == "dev") & (pl.col("term") == "full/huber"))["value"].to_list())


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("var/examples"))
