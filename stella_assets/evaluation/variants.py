"""The step `mteb/variants`: the last stage with vectors of fewer bits, and asked in other words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property, lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow.parquet as pq
import yaml

from stella_assets.core.step import BuildContext, Result, Step
from stella_assets.evaluation.score import score_model, student_prompts
from stella_assets.evaluation.tasks import PROBE_FILE, tasks_step
from stella_assets.recipe import Recipe
from stella_assets.training.stages import model_folder, stage_step

if TYPE_CHECKING:
    from stella_assets.evaluation.encoders import Embedder, EncodeRequest, EncoderIdentity, StudentEmbedder
    from stella_assets.evaluation.summary import Scoreboard

CODE_VERSION = "1"
Precision = Literal["int8", "binary"]
BITS = {"float32": 32, "int8": 8, "binary": 1}


class QuantizedEmbedder:
    """A student whose vectors are stored in fewer bits, as sentence-transformers quantises them.

    int8 keeps a range a dimension, calibrated on texts of the corpus; binary keeps the sign, so that cosine is Hamming
    distance. Vectors are given as the floats that the stored ones stand for.
    """

    def __init__(self, student: StudentEmbedder, precision: Precision, calibration: list[str]) -> None:
        self._student = student
        self._precision = precision
        self._calibration = calibration
        self.dim = student.dim

    @cached_property
    def _ranges(self) -> np.ndarray:
        """`[2, dim]`: least and largest entry of each dimension."""
        vectors = self._student.embed(self._calibration, None)
        return np.stack([vectors.min(axis=0), vectors.max(axis=0)])

    def identity(self) -> EncoderIdentity:
        """The student's, and the precision."""
        from dataclasses import replace

        loader = self._student.identity()
        return replace(loader, name=f"{loader.name}, {self._precision}")

    def prompt(self, request: EncodeRequest) -> str | None:
        """The student's."""
        return self._student.prompt(request)

    def embed(self, texts: Sequence[str], request: EncodeRequest | None) -> np.ndarray:
        """Vectors `[len(texts), dim]` float32."""
        from sentence_transformers.quantization import quantize_embeddings

        vectors = self._student.embed(texts, request)
        if self._precision == "binary":
            packed = quantize_embeddings(vectors, "ubinary")
            return 2.0 * np.unpackbits(np.asarray(packed), axis=1)[:, : self.dim].astype(np.float32) - 1
        stored = np.asarray(quantize_embeddings(vectors, "int8", ranges=self._ranges)).astype(np.float32)
        low, high = self._ranges
        return low + (stored + 128.5) * (high - low) / 255


def variants_step(recipe: Recipe) -> Step | None:
    """The step that scores variants of the last stage; None where the recipe asks for none."""
    wanted = recipe.evaluation
    paraphrased = paraphrase(student_prompts(recipe)) if wanted.paraphrases else {}
    if not wanted.quantizations and not paraphrased:
        return None
    last = len(recipe.stages)
    return Step(
        recipe=recipe.name,
        name="mteb/variants",
        code_version=CODE_VERSION,
        settings={
            "quantizations": list(wanted.quantizations),
            "paraphrased": paraphrased,
            "prompts": student_prompts(recipe),
            "dimension": recipe.release.dimension,
        },
        needs=(tasks_step(recipe), stage_step(recipe, last)),
        build=lambda context: _score_variants(recipe, paraphrased, context),
    )


def paraphrase(prompts: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Prompts in other words, by the name of the variant, from those that come with this package."""
    found = {}
    for name, replacements in _shipped().items():
        changed = dict(prompts)
        for old, new in replacements.items():
            changed = {key: prompt.replace(old, new) for key, prompt in changed.items()}
        if changed != dict(prompts):
            found[name] = changed
    return found


@lru_cache
def _shipped() -> dict[str, dict[str, str]]:
    """Replacements by the name of the variant, read once a process."""
    return yaml.safe_load(files(__package__).joinpath("paraphrases.yaml").read_text(encoding="utf-8"))


def _score_variants(recipe: Recipe, paraphrased: Mapping[str, Mapping[str, str]], context: BuildContext) -> Result:
    return score_model(recipe, list(_embedders(recipe, paraphrased, context)), context)


def _embedders(
    recipe: Recipe, paraphrased: Mapping[str, Mapping[str, str]], context: BuildContext
) -> Iterator[tuple[str, Embedder]]:
    from stella_assets.evaluation.encoders import PooledStates, StudentEmbedder
    from stella_assets.students.dense import Student

    last = len(recipe.stages)
    student = Student.load(model_folder(context.inputs[f"stage_{last}"]), recipe.student)
    states, prompts = PooledStates(student, context.workspace), student_prompts(recipe)
    probe = pq.read_table(context.inputs["evaluation_tasks"].folder / PROBE_FILE).column("text").to_pylist()
    for precision in recipe.evaluation.quantizations:
        for dim in student.dims if recipe.trains_matryoshka_heads(last) else student.dims[:1]:
            yield precision, QuantizedEmbedder(StudentEmbedder(states, dim, prompts), precision, probe)
    for name, changed in paraphrased.items():
        yield name, StudentEmbedder(states, recipe.release.dimension, changed)


def summarise_variants(recipe: Recipe, board: Scoreboard) -> dict[str, Any]:
    """What fewer bits and other words cost.

    Returns:
        `{"quantizations": [{"precision", "dimension", "bytes", "mean", "difference"}], "paraphrases": [{"name", "mean",
        "difference"}]}`; differences to float32 and to the recipe's own prompts, in points of 100, with intervals.
        Paraphrases are over those tasks alone that have a prompt.
    """
    student, everything = f"stage_{len(recipe.stages)}", board.groups["mean"]
    quantizations = [
        {
            "precision": name,
            "dimension": dim,
            "bytes": dim * BITS[name] // 8,
            "mean": round(board.mean((name, dim), everything), 6),
            "difference": board.difference((name, dim), (student, dim), everything),
        }
        for name, dim in board.models
        if name in recipe.evaluation.quantizations
    ]
    plain = (student, recipe.release.dimension)
    names = [name for name in paraphrase(student_prompts(recipe)) if (name, plain[1]) in board.points]
    others = [board.points[name, plain[1]] for name in names]
    asked = [task for task in everything if any(scores[task] != board.points[plain][task] for scores in others)]
    paraphrases = [
        {
            "name": name,
            "mean": round(board.mean((name, plain[1]), asked), 6),
            "difference": board.difference((name, plain[1]), plain, asked),
        }
        for name in (names if asked else ())
    ]
    return {"quantizations": quantizations, "paraphrases": paraphrases, "paraphrased_tasks": asked}
