"""The rehearsal: what a release asks of a student is tried with the untouched one, before any training.

Shapes: B texts, D dimensions of a head.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stella_assets.core.errors import UserError
from stella_assets.core.models import ModelFiles, require_one_encoder, translated
from stella_assets.release.loaders import SAME, compare_loaders, require_same
from stella_assets.release.reload import cosines
from stella_assets.release.settings import ReleaseSettings
from stella_assets.students import DenseConfig
from stella_assets.teachers.examination import MIN_COSINE, SHOWN, without_direction
from stella_assets.training.stages import StageConfig

if TYPE_CHECKING:
    from torch import Tensor

    from stella_assets.core.devices import Compute, Dtype
    from stella_assets.students.dense.model import DenseStudent

REHEARSAL = "rehearsal"
# Of very different lengths: the shorter of two texts in a batch is the one that is padded. Two begin alike: the first
# token of a decoder sees no other.
TEXTS = (
    "sort",
    "Return a sorted copy of an array.",
    "Return a network connection that is open, and tell what happens when the other side has closed it too early.",
    "Two words,  CamelCase: naïve café, 3.14 + x_1 -> 東京!",
    "compare the rows of a table with their neighbours, and keep the largest of them " * 4,
)
# Attention has another kernel where gradients are needed; another position or mask moves the second digit.
NEARLY = 0.999
"""Minimum cosine of a vector in training with the one of the same text alone."""


# bfloat16 has 8 bits of precision, and errors of many layers add up; code that mixes formats loses the direction.
ROUNDED = 0.9
"""Minimum cosine of a vector in the number format of training with the one in float32."""


class RehearsalError(UserError):
    """A student that a recipe could train, and that would fail at its release or learn from other vectors."""


ANOTHER = "Choose another model."
ENCODER_ALONE = "Choose another model, or name a copy of the folder without modules.json, of which the encoder is read."


@dataclass(frozen=True)
class Rehearsed:
    """What a rehearsal found.

    Attributes:
        loaders: Rows of `RELEASED_VECTORS`.
        unused: Parameters that would train and that no vector depends on, e.g. BERT's pooler.
    """

    loaders: list[dict[str, Any]]
    unused: list[str]


def rehearse(
    student: DenseConfig,
    release: ReleaseSettings,
    stages: Sequence[StageConfig],
    dimension: int | None,
    scratch: Path,
    compute: Compute,
) -> Rehearsed:
    """Save, export and load the untouched student as a release, and train one batch as each stage would.

    Args:
        student: Settings of the student.
        release: What would be released.
        stages: Those that would train it.
        dimension: Of the teachers' concatenation; None where it is not known yet, and then the largest dimension that
            the recipe names stands for it.
        scratch: An existing folder; what is written there is removed again.
        compute: Where it computes.

    Returns:
        What was found.

    Raises:
        UserError: The student cannot be made, trained, saved or loaded, or its vectors differ.
    """
    files = ModelFiles(student)
    # Not every model that loads computes: whatever the libraries raise then names the model.
    with translated(files, ANOTHER):
        model = student.initialise(dimension or max(release.dimension, *student.matryoshka_dims, 0), 0, compute)
        own, model.dtype = model.dtype, "float32"  # as loaders compute
        _require_directions(student, model)
    with translated(files, ENCODER_ALONE):
        require_one_encoder(files)
        _require_base_model(student, compute)
    alone_BD = _alone(student.model, model)
    _compare_format(student.model, model, own, alone_BD)
    folder = scratch / REHEARSAL
    try:
        model.save(folder, model.head_of(release.dimension), student.prompts)
        if release.onnx:
            _export(student.model, model, release.dimension, folder)
        trust = student.trust_remote_code
        loaders = compare_loaders(model, folder, TEXTS, student.prompts, scratch, trust=trust)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    require_same(f"rehearsal of {student.model}", loaders)
    with translated(files, ANOTHER):
        unused = [name for number, stage in enumerate(stages) for name in _train(f"stages.{number}", stage, model)]
    return Rehearsed(loaders, sorted(set(unused)))


def _require_base_model(student: DenseConfig, compute: Compute) -> None:
    """The model as its authors ship it is scored next to the student, with modules that the student does not have."""
    from stella_assets.evaluation.base_model import authors_model

    model, texts = authors_model(student, compute), list(TEXTS)
    least = cosines(model.encode(texts, "document"), model.encode_by_library(texts, "document")).min()
    if not least >= MIN_COSINE:
        raise RehearsalError(
            f"student.model {student.model}: with all its modules, the vector of a text depends on the texts in its "
            f"batch (minimum cosine {least:.4f} with the library's vector of the text alone), so it cannot be scored "
            "next to the student.",
            f"Set `tokenizer_kwargs: {{padding_side: right}}` if it pads before texts. {ENCODER_ALONE}",
        )


def _require_directions(student: DenseConfig, model: DenseStudent) -> None:
    """Refuse an encoder that says nothing of a text, which no training of heads could mend."""
    for name, prompt in (("", ""), *student.prompts.items()):
        texts = [prompt + text for text in TEXTS]
        match without_direction(model.encode_pooled(texts)):
            case (bad,):
                raise RehearsalError(
                    f"student.model {student.model}: the pooled state of {TEXTS[bad][:SHOWN]!r} is zero or not finite.",
                    "Its weights are damaged. Copy or download the model again, or choose another model.",
                )
            case (one, other) if not prompt or not _are_cut_alike(model, texts[one], texts[other]):
                raise RehearsalError(
                    f"student.model {student.model}: it gives {TEXTS[one][:SHOWN]!r} and {TEXTS[other][:SHOWN]!r} the "
                    "same pooled state.",
                    "Its weights or its tokenizer are damaged, or `max_length` or `pooling` hides the texts. Choose "
                    "another model, or correct these.",
                )
            case (one, other):
                raise RehearsalError(
                    f"student.prompts.{name}: with it, {TEXTS[one][:SHOWN]!r} and {TEXTS[other][:SHOWN]!r} have the "
                    f"same pooled state: student.max_length {student.max_length} leaves no room after the prompt.",
                    "Raise `max_length`, or shorten the prompt.",
                )


def _are_cut_alike(model: DenseStudent, one: str, other: str) -> bool:
    """Whether nothing is left of two texts but what both begin with, i.e. the prompt."""
    from stella_assets.students.tokenise import tokenise

    rows = tokenise(model.backbone.tokenizer, (one, other), model.max_tokens).columns["input_ids"]
    return rows[0].tolist() == rows[1].tolist()


def _alone(name: str, model: DenseStudent) -> Any:
    """Vectors `[B, D]` of the full head, each text by itself; they must not depend on the batch that a text is in."""
    import numpy as np

    alone_BD = np.concatenate([model.encode([text]) for text in TEXTS])
    least = cosines(model.encode(TEXTS), alone_BD).min()
    if not least >= SAME:
        raise RehearsalError(
            f"student.model {name}: the vector of a text depends on the texts in its batch (minimum cosine "
            f"{least:.4f} with the vector of the text alone), so padding is not hidden from the encoder.",
            "Choose another `pooling`, or another model.",
        )
    return alone_BD


def _compare_format(name: str, model: DenseStudent, own: Dtype, alone_BD: Any) -> None:
    """Make sure that the encoder runs in the number format that stages will train it in."""
    model.dtype = own
    try:
        least = cosines(model.encode(TEXTS), alone_BD).min()
    except RuntimeError as error:  # code that mixes formats
        raise RehearsalError(
            f"student.model {name}: its code does not compute in {own}, which this device trains in ({error}).",
            "Choose another model, or mend its code in a folder of your own.",
        ) from error
    finally:
        model.dtype = "float32"
    if not least >= ROUNDED:
        raise RehearsalError(
            f"student.model {name}: vectors in {own}, which this device trains in, differ from those in float32 "
            f"(minimum cosine {least:.4f}).",
            ANOTHER,
        )


def _export(name: str, model: DenseStudent, dimension: int, folder: Path) -> None:
    from stella_assets.release.onnx import export_onnx

    try:
        export_onnx(model, dimension, folder)
    except Exception as error:  # whatever the exporter raises about an operator that it does not know
        raise RehearsalError(
            f"student.model {name}: it cannot be exported as ONNX ({type(error).__name__}: {str(error)[-500:]}).",
            "Set `release.onnx: false`, or choose another model.",
        ) from error


def _train(place: str, stage: StageConfig, model: DenseStudent) -> list[str]:
    """Train one batch as a stage would; gives the parameters that no vector depends on.

    The targets are random: what is asked is whether every part that should learn does, not what it learns.
    """
    import torch

    from stella_assets.students import FULL
    from stella_assets.students.dense.layers import layer_parameters

    # Anew for each stage: the one before has trained a batch, so these are no longer the untouched student's.
    expected_BD = model.encode(TEXTS)
    stage.prepare(model)
    trained = model.trained_parameters()
    optimizer = torch.optim.AdamW(trained.values(), lr=1e-5, fused=True)
    vectors = _forward(model, list(stage.objective(model.dimensions).heads))
    least = cosines(vectors[FULL].detach().cpu().numpy(), expected_BD).min()
    if not least >= NEARLY:
        raise RehearsalError(
            f"{place}: in training, the student gives other vectors than afterwards (minimum cosine {least:.4f}).",
            "Choose another model, or report this architecture.",
        )
    generator = torch.Generator().manual_seed(0)
    loss = torch.stack([_distance(vectors_BD, generator) for vectors_BD in vectors.values()]).sum()
    loss.backward()
    gradients = {name: parameter.grad for name, parameter in trained.items() if parameter.grad is not None}
    idle = [name for name in trained if name not in gradients]
    if still := sorted(layer_parameters(model).intersection(idle)):
        raise RehearsalError(
            f"{place}: {still[0]} and {len(still) - 1} others should train and get no gradient.",
            "Lower `train_layers`, or choose another model.",
        )
    broken = [name for name, gradient in gradients.items() if not gradient.isfinite().all()]
    if broken or not loss.isfinite():
        raise RehearsalError(
            f"{place}: the loss of a first batch is {loss.item():.4g}, and gradients of {len(broken)} parameters are "
            "not finite.",
            ANOTHER,
        )
    optimizer.step()
    model.zero_grad(set_to_none=True)
    return idle


def _forward(model: DenseStudent, heads: Sequence[str]) -> Mapping[str, Tensor]:
    """Vectors of the texts as training computes them: in two groups of similar length, one of them padded."""
    import numpy as np

    from stella_assets.core.batching import padded_widths
    from stella_assets.students.tokenise import tokenise

    limit = model.max_tokens
    tokens = tokenise(model.backbone.tokenizer, TEXTS, limit)
    widths = padded_widths(tokens.lengths, limit)
    groups = [np.arange(2), np.arange(2, len(TEXTS))]
    return model([tokens.batch(group, int(widths[group].max())) for group in groups], heads)


def _distance(vectors_BD: Tensor, generator: Any) -> Tensor:
    import torch

    targets_BD = torch.randn(*vectors_BD.shape, generator=generator).to(vectors_BD)
    return 1 - torch.nn.functional.cosine_similarity(vectors_BD, targets_BD).mean()
