"""What the training of a retriever needs, as plain values: it may train in processes of its own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stella_assets.core.config import ModelSource
from stella_assets.core.devices import Compute
from stella_assets.core.step import Log, Result
from stella_assets.storage.workspace import Workspace
from stella_assets.training.retrievers.base import RETRIEVERS, RetrieverConfig

# Fields that are written as text, as JSON has no paths.
PATHS = ("saved", "corpus", "pairs", "mined_negatives", "scores", "folder", "scratch")


@dataclass(frozen=True)
class RetrieverInputs:
    """What the training of a retriever needs.

    Attributes:
        name: Of its step, for logs and messages.
        retriever: Its settings.
        source: The model that it begins with, and how that is loaded.
        saved: Folder of the student after its last stage, to load in its place; None for the model itself.
        seed: Of what is new, and of the order of the lists.
        corpus: Folder of the texts.
        pairs: Folder of the pairs.
        mined_negatives: Folder of the negatives that were mined for them; None for none.
        scores: Folder of the scores of its candidates; None for none.
        folder: Of the artefact.
        scratch: Where checkpoints go.
        workspace: Whose disks they are on.
        compute: Device and threads.
    """

    name: str
    retriever: RetrieverConfig
    source: ModelSource
    saved: Path | None
    seed: int
    corpus: Path
    pairs: Path
    mined_negatives: Path | None
    scores: Path | None
    folder: Path
    scratch: Path
    workspace: Workspace
    compute: Compute

    def run(self, log: Log) -> Result:
        """Train the retriever; see `train_retriever`."""
        from stella_assets.training.retrievers.train import train_retriever

        return train_retriever(self, log)

    def to_json(self) -> dict[str, Any]:
        """As plain values.

        Returns:
            What JSON can hold, for `from_json` of another process on the same disks.
        """
        # A student is a model with further settings, which do not matter here.
        source = self.source.model_dump(mode="json", include=set(ModelSource.model_fields))
        return {
            "name": self.name,
            # Settings keep relative paths as they were written; the folder that they count from goes along.
            "retriever": self.retriever.settings(),
            "source": source,
            "source_folder": str(self.source.resolve(".")),
            "seed": self.seed,
            "paths": {name: None if (path := getattr(self, name)) is None else str(path) for name in PATHS},
            "workspace": {"root": str(self.workspace.root), "vectors_uri": self.workspace.vectors_uri},
            # Without the engine: a job trains in the processes that its launcher started, and starts none itself.
            "compute": {"device_name": self.compute.device_name, "threads": self.compute.threads},
        }

    @classmethod
    def from_json(cls, written: dict[str, Any]) -> RetrieverInputs:
        """From what `to_json` gave.

        Args:
            written: Read from the file of the job.
        """
        context = {"folder": Path(written["source_folder"])}
        paths: dict[str, Any] = {name: path and Path(path) for name, path in written["paths"].items()}
        return cls(
            name=written["name"],
            retriever=RETRIEVERS[written["retriever"]["kind"]].model_validate(written["retriever"], context=context),
            source=ModelSource.model_validate(written["source"], context=context),
            seed=written["seed"],
            workspace=Workspace(Path(written["workspace"]["root"]), written["workspace"]["vectors_uri"]),
            compute=Compute(**written["compute"]),
            **paths,
        )
