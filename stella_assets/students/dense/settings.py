"""Settings of the kind `dense`, and a saved student. No model library is loaded here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, model_validator

from stella_assets.core.config import Dimension, Positive
from stella_assets.core.models import (
    ModelFiles,
    check_code,
    check_files,
    load_tokenizer,
    model_folder,
    read_shape,
    require_one_encoder,
)
from stella_assets.students.base import FULL, STUDENTS, StudentConfig, StudentError, TrainsLayers

if TYPE_CHECKING:
    from stella_assets.core.devices import Compute
    from stella_assets.students.dense.model import DenseStudent

TRANSFORMER = "Transformer"
"""The module of sentence-transformers that holds a transformers model."""
ENCODERS_ONLY = "Name a transformers encoder or decoder of texts. As a teacher, this model may do."


@STUDENTS.register
class DenseConfig(StudentConfig):
    """A transformers encoder, pooling, and linear heads: one unit vector per text and head."""

    kind: Literal["dense"] = "dense"
    keep_layers: tuple[Annotated[int, Field(ge=0)], ...] | Positive | None = Field(
        None, description="the layers to keep, or how many, spread evenly; all when left out"
    )
    pooling: Literal["mean", "cls", "lasttoken"] = Field("mean", description="how token states become one state")
    matryoshka_dims: tuple[Dimension, ...] = Field((1024, 512, 256), description="dimensions of the Matryoshka heads")
    matryoshka_heads: Literal["independent", "prefix"] = Field(
        "independent",
        description="heads with weights of their own, or the first dimensions of the full head; a dimension above "
        "those of the teachers that teach the student needs `independent`",
    )
    head_hidden: Dimension | None = Field(None, description="hidden dimensions of a two-layer head (SiLU); else linear")

    @model_validator(mode="after")
    def _require_consistent(self) -> Self:
        if len(set(self.matryoshka_dims)) < len(self.matryoshka_dims):
            raise ValueError(f"matryoshka_dims {list(self.matryoshka_dims)} names a dimension twice")
        if self.keep_layers == ():
            raise ValueError("keep_layers is empty: name at least one layer, or leave it out to keep all")
        if isinstance(self.keep_layers, tuple) and sorted(set(self.keep_layers)) != list(self.keep_layers):
            raise ValueError(f"keep_layers {list(self.keep_layers)} must rise, each layer once, counting from 0")
        return self

    def kept_layers(self, available: int) -> tuple[int, ...]:
        """The layers to keep of a model that has `available`, counting from 0.

        Args:
            available: Layers of the base model.

        Returns:
            Numbers of layers, ascending.

        Raises:
            StudentError: The model has fewer.

        Example:
            >>> DenseConfig(model="./base", keep_layers=4).kept_layers(12)
            (0, 4, 7, 11)
        """
        match self.keep_layers:
            case None:
                return tuple(range(available))
            # Evenly with both ends: the first layer reads embeddings, the last one makes what is pooled.
            case int(count) if count <= available:
                return tuple(round(i * (available - 1) / max(1, count - 1)) for i in range(count))
            case tuple(layers) if layers[-1] < available:
                return layers
        shown = list(self.keep_layers) if isinstance(self.keep_layers, tuple) else self.keep_layers
        raise StudentError(
            f"student.keep_layers {shown}: {self.model} has layers 0 to {available - 1}.", "Name some of those."
        )

    def require_prefixes(self, available: int) -> None:
        """Make sure that heads without weights of their own have dimensions to be the first ones of.

        Args:
            available: Leading dimensions of the full head that every stage has taught.

        Raises:
            StudentError: A prefix head is above that.
        """
        largest = max(self.matryoshka_dims, default=0)
        if self.matryoshka_heads == "prefix" and largest > available:
            raise StudentError(
                f"student.matryoshka_dims {largest}: with matryoshka_heads `prefix` it would be the first {largest} "
                f"dimensions of the full head, of which the first stage teaches the first {available} only.",
                f"Take at most {available}, or set student.matryoshka_heads to `independent`.",
            )

    def initialise(
        self, full_dimension: int | None, seed: int, compute: Compute, weights: Path | None = None
    ) -> DenseStudent:
        """The base model with the layers that the recipe keeps, and new heads; see `StudentConfig.initialise`."""
        from stella_assets.students.dense.files import initialise_student

        return initialise_student(self, full_dimension, seed, compute, weights)

    def load(self, folder: Path, compute: Compute) -> DenseStudent:
        """Read a student from the folder that it was saved to."""
        from stella_assets.students.dense.files import load_student

        return load_student(self, folder, compute)

    def check(self, stages: Sequence[TrainsLayers]) -> None:
        """Compare layers and length with the base model's configuration; see `StudentConfig.check`."""
        if self.on_hub:  # its configuration is not known without a download
            return
        # Small files alone answer: a wrong recipe is refused before any weights are read.
        self._require_encoder()
        check_files(model_folder(self))
        load_tokenizer(self)
        shape = read_shape(self)
        if shape.composite:
            raise StudentError(
                f"student.model {self.model}: a {shape.model_type} model is more than an encoder of texts.",
                ENCODERS_ONLY,
            )
        kept = len(self.kept_layers(shape.layers))
        if shape.positions and self.max_length > shape.positions:
            raise StudentError(
                f"student.max_length {self.max_length} is above the {shape.positions} positions of {self.model}.",
                "Lower it.",
            )
        for number, stage in enumerate(stages):
            if stage.train_layers != "all" and stage.train_layers > kept:
                raise StudentError(
                    f"stages.{number}.train_layers {stage.train_layers}: the student has {kept} layers.",
                    "Lower it, or say `all`.",
                )

    def _require_encoder(self) -> None:
        """Static tables, CLIP and modules of other authors are no encoder with layers that could be saved as one."""
        files = ModelFiles(self)
        check_code(files)  # a module of other authors needs trust, whatever it is
        kind = str(next((module["type"] for module in files.modules), TRANSFORMER))
        if not (kind.startswith("sentence_transformers.") and kind.endswith(f".{TRANSFORMER}")) and kind != TRANSFORMER:
            raise StudentError(
                f"student.model {self.model}: modules.json begins with {kind}, not with a {TRANSFORMER}.", ENCODERS_ONLY
            )
        require_one_encoder(files)


def head_dimensions(full: int, matryoshka: Iterable[int]) -> dict[str, int]:
    """Names of heads with their dimensions: `full`, then the Matryoshka heads, the largest first.

    A Matryoshka dimension that equals the full one needs no head of its own; one that is above it is allowed.

    Args:
        full: Dimensions of the full head.
        matryoshka: Those of the Matryoshka heads, in any order.

    Example:
        >>> head_dimensions(768, [256, 768, 512])
        {'full': 768, '512': 512, '256': 256}
    """
    others = sorted({*matryoshka} - {full}, reverse=True)
    return {FULL: full, **{str(dimension): dimension for dimension in others}}


@dataclass(frozen=True)
class SavedStudent:
    """A student on disk: what a stage reads as.

    Attributes:
        folder: In the layout of SentenceTransformers.
        config: The settings that it was made with.
    """

    folder: Path
    config: DenseConfig

    def load(self, compute: Compute) -> DenseStudent:
        """Read it."""
        return self.config.load(self.folder, compute)
