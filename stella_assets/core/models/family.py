"""Whether a folder holds a model that gives one vector per text, or one of another family."""

from __future__ import annotations

from stella_assets.core.errors import UserError
from stella_assets.core.models.source import CONFIG, MODULES, ST_CONFIG, ModelFiles

TEXT_VECTORS = "SentenceTransformer"
"""What `config_sentence_transformers.json` calls such a model; older versions say nothing."""
LATE_INTERACTION, SCORES = "MultiVectorEncoder", "CrossEncoder"
GIVES = {
    "SparseEncoder": "one weight per token of its vocabulary",
    LATE_INTERACTION: "one vector per token (late interaction)",
    SCORES: "one score per pair of texts",
}
REMEDIES = {SCORES: "Name a model of text vectors. A reranker can score pairs; see `pair_scores`."}
WITHOUT_TRANSFORMER = ("BoW", "WordEmbeddings")
"""Modules that read the words of a text, and no tokens of transformers."""
ROUTERS = ("Router", "Asym")
"""Modules that send queries and documents through different modules."""
ANOTHER = "Name a model that gives a vector per text with one transformers encoder."


class FamilyError(UserError):
    """A model that is made for something else than one vector per text."""


def require_text_vectors(files: ModelFiles) -> None:
    """Refuse models of which `SentenceTransformer` would make vectors that their authors never published.

    It puts mean pooling over the encoder of any other family.

    Args:
        files: Of the model. No code of it is run.

    Raises:
        FamilyError: It gives something else, or its modules are not those of one encoder.
    """
    family = _family(files)
    if family != TEXT_VECTORS:
        gives = GIVES.get(family, "something else than one vector per text")
        raise FamilyError(f"{files.name}: it is a {family}, which gives {gives}.", REMEDIES.get(family, ANOTHER))
    require_one_encoder(files)


def require_one_encoder(files: ModelFiles) -> None:
    """Refuse modules that read no tokens of transformers, or that need to be told the role of a text.

    Args:
        files: Of the model. No code of it is run.

    Raises:
        FamilyError: It has such modules.
    """
    kinds = [str(module["type"]).rpartition(".")[2] for module in files.modules]
    if kinds and kinds[0] in WITHOUT_TRANSFORMER:
        raise FamilyError(
            f"{files.name}: {MODULES} begins with {kinds[0]}, which reads words, not tokens of transformers.", ANOTHER
        )
    if routers := [kind for kind in kinds if kind in ROUTERS]:
        raise FamilyError(
            f"{files.name}: {MODULES} has a {routers[0]}, which sends queries and documents through different modules.",
            "Name a model that encodes both with the same modules.",
        )


def _family(files: ModelFiles) -> str:
    if any(str(module["type"]).startswith("pylate.") for module in files.modules):
        return LATE_INTERACTION
    own, config = files.read(ST_CONFIG) or {}, {} if files.modules else files.read(CONFIG) or {}
    # Before version 6 a CrossEncoder was a transformers model alone, and only from 4 on said what it was.
    classes = config.get("architectures") or []
    if "sentence_transformers" in config or any("ForSequenceClassification" in str(each) for each in classes):
        return SCORES
    return str(own.get("model_type") or TEXT_VECTORS)
