"""What a stage needs, as plain values: a stage may be trained in processes of its own, which read this from a file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stella_assets.core.devices import Compute
from stella_assets.core.step import Log, Result
from stella_assets.storage.workspace import Workspace
from stella_assets.students import DenseConfig
from stella_assets.training.snapshot_reference import SnapshotReference
from stella_assets.training.stages import STAGES, StageConfig

# Fields that are written as text, as JSON has no paths.
PATHS = ("tokens", "left_out", "previous", "start", "folder", "scratch", "pairs", "mined_negatives")


@dataclass(frozen=True)
class StageInputs:
    """What a stage needs.

    Attributes:
        name: Of the stage, for logs and messages.
        stage: Its settings.
        student: Settings of the student.
        seed_of_heads: Seed of the weights of new heads.
        seed_of_order: Seed of the order of the texts.
        snapshot: The teachers' vectors.
        tokens: File of the tokens.
        left_out: Folder of the semantic duplicates, which are not trained on; None for all texts.
        previous: Folder of the student to continue from; None for a new one.
        start: Folder of a student whose encoder a new one takes; None for the base model.
        starts_matryoshka_heads: Whether the Matryoshka heads are started from the full one first.
        folder: Of the artefact.
        scratch: Where checkpoints go.
        compute: Device and threads.
        teachers: Those that any stage of the recipe learns from, which the full head has rows for; None for all.
        pairs: Folder of the pairs, for a stage that reads them.
        mined_negatives: Folder of the negatives that were mined for them; None for none.
    """

    name: str
    stage: StageConfig
    student: DenseConfig
    seed_of_heads: int
    seed_of_order: int
    snapshot: SnapshotReference
    tokens: Path
    left_out: Path | None
    previous: Path | None
    start: Path | None
    starts_matryoshka_heads: bool
    folder: Path
    scratch: Path
    compute: Compute
    teachers: tuple[str, ...] | None = None
    pairs: Path | None = None
    mined_negatives: Path | None = None

    def run(self, log: Log) -> Result:
        """Train the stage; see `train_stage`."""
        from stella_assets.training.train import train_stage

        return train_stage(self, log)

    def to_json(self) -> dict[str, Any]:
        """As plain values.

        Returns:
            What JSON can hold, for `from_json` of another process on the same disks.
        """
        workspace = self.snapshot.workspace
        return {
            "name": self.name,
            "stage": self.stage.settings(),
            "student": self.student.settings(),
            # Settings keep relative paths as they were written; the folder that they count from goes along.
            "student_folder": str(self.student.resolve(".")),
            "seeds": {"heads": self.seed_of_heads, "order": self.seed_of_order},
            "workspace": {"root": str(workspace.root), "vectors_uri": workspace.vectors_uri},
            "snapshot": {"recipe": self.snapshot.recipe, "tag": self.snapshot.tag},
            "paths": {name: None if (path := getattr(self, name)) is None else str(path) for name in PATHS},
            "starts_matryoshka_heads": self.starts_matryoshka_heads,
            "teachers": self.teachers,
            # Without the engine: a job trains in the processes that its launcher started, and starts none itself.
            "compute": {"device_name": self.compute.device_name, "threads": self.compute.threads},
        }

    @classmethod
    def from_json(cls, written: dict[str, Any]) -> StageInputs:
        """From what `to_json` gave.

        Args:
            written: Read from the file of the job.
        """
        paths, seeds = written["paths"], written["seeds"]
        workspace = Workspace(Path(written["workspace"]["root"]), written["workspace"]["vectors_uri"])

        def optional(name: str) -> Path | None:
            return None if paths[name] is None else Path(paths[name])

        return cls(
            name=written["name"],
            stage=STAGES[written["stage"]["method"]].model_validate(written["stage"]),
            student=DenseConfig.model_validate(written["student"], context={"folder": Path(written["student_folder"])}),
            seed_of_heads=seeds["heads"],
            seed_of_order=seeds["order"],
            snapshot=SnapshotReference(workspace, **written["snapshot"]),
            tokens=Path(paths["tokens"]),
            left_out=optional("left_out"),
            previous=optional("previous"),
            start=optional("start"),
            starts_matryoshka_heads=written["starts_matryoshka_heads"],
            teachers=None if written["teachers"] is None else tuple(written["teachers"]),
            folder=Path(paths["folder"]),
            scratch=Path(paths["scratch"]),
            pairs=optional("pairs"),
            mined_negatives=optional("mined_negatives"),
            compute=Compute(**written["compute"]),
        )
