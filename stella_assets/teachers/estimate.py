"""What encoding a corpus with a teacher would cost: the texts without a vector, at the speed of the last run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stella_assets.core.manifest import Identity, Manifest, plain
from stella_assets.core.runner import Runner
from stella_assets.core.step import Artefact, Estimate, Size, Step
from stella_assets.corpus.read import CorpusTexts
from stella_assets.teachers.forecast import with_cost
from stella_assets.teachers.kinds.base import TeacherConfig
from stella_assets.teachers.teacher_vectors import Reference, TeacherVectors, fingerprints
from stella_assets.teachers.worker import EncodeWorker


def estimate_encoding(
    step: Step[TeacherVectors],
    teacher: TeacherConfig,
    corpus: Step[CorpusTexts],
    runner: Runner,
    last: Manifest | None,
    size: Size | None,
) -> Estimate:
    """Count the texts that have no vector of this teacher.

    Args:
        step: Makes the teacher's vectors.
        teacher: The teacher's settings. Of a fitted one another corpus makes another teacher, with new vectors.
        corpus: Makes the corpus; one that is still to be made has no texts to count.
        runner: Finds what exists.
        last: The last artefact of the step's kind; it knows the speed.
        size: Of the corpus to be made; None where it is not known.

    Returns:
        The texts to encode in words, and the seconds that they take; None where no speed was measured.
    """
    made = runner.find(corpus)
    if made is None:
        if size is None:
            return Estimate("the texts that are new")
        expected = Estimate(f"{size.texts:,} texts to embed", _seconds(last, size.texts), texts=size.texts)
        return with_cost(expected, teacher.forecast_of(size.texts, size.mean_bytes))
    texts = corpus.read(made, runner.workspace)
    if teacher.paid:
        return _of_paid(teacher, texts, runner, last)
    # The pessimistic answer, unless the store is known to hold vectors of exactly this teacher.
    missing = len(texts)
    before = runner.before(step)
    if (
        before is not None
        and not teacher.fitted
        and _same_but_for(corpus, before.identity, runner.known_identity(step))
    ):
        # Its reference names the tables, so no model is loaded to compute a fingerprint.
        folder = runner.workspace.current(step.recipe, step.name).resolve()
        missing = step.read(Artefact(step.stored_as, folder, before), runner.workspace).count_missing(texts)
    return Estimate(f"{missing:,} of {len(texts):,} texts to embed", _seconds(last, missing), texts=missing)


def _of_paid(teacher: TeacherConfig, texts: CorpusTexts, runner: Runner, last: Manifest | None) -> Estimate:
    """Of a model that others run only the texts count that neither the store nor its journal has."""
    # Nothing in its folder decides its vectors.
    worker = EncodeWorker(teacher, Path())
    model = worker.model(runner.compute)
    reference = Reference(model.dim, 0, fingerprints(model), "")
    forecast = TeacherVectors(teacher, Path(), reference, runner.workspace, worker).forecast(texts, runner.compute)
    assert forecast is not None, "it is paid"
    work = f"{forecast.texts:,} of {len(texts):,} texts to embed"
    return with_cost(Estimate(work, _seconds(last, forecast.texts), texts=forecast.texts), forecast)


def _seconds(last: Manifest | None, texts: int) -> float | None:
    """What was measured besides encoding, e.g. loading the model, and the texts at the measured speed."""
    if last is None or not last.metrics["texts_per_second"]:
        return None
    speed, encoded = last.metrics["texts_per_second"], last.metrics.get("embedded_now", 0)
    return max(0.0, float(last.run_info["seconds"]) - encoded / speed) + texts / speed


def _same_but_for(corpus: Step[Any], before: Identity, now: Identity) -> bool:
    """Whether only the corpus changed, so that the vectors in the store are those of the teacher as it is now."""

    def rest(identity: Identity) -> tuple[Any, ...]:
        inputs = {name: value for name, value in identity.inputs.items() if name != corpus.stored_as}
        return identity.code_version, plain(identity.settings), inputs

    return rest(before) == rest(now)
