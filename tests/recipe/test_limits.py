"""Numbers that cannot fit in memory, and what can only fail later, are refused before a run."""

from pathlib import Path
from typing import Any

import pytest

from stella_assets.corpus.errors import LanguageError
from stella_assets.recipe import RecipeError, parse_recipe
from stella_assets.recipe.preflight import check_recipe, remarks
from stella_assets.storage.workspace import Workspace

LARGE = 10**7


def changed(raw: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    """The recipe with one key changed; a part of the key that is a number is a place in a list."""
    at: Any = raw
    *path, last = key.split(".")
    for part in path:
        at = at[int(part)] if part.isdigit() else at.setdefault(part, {})
    at[int(last) if last.isdigit() else last] = value
    return raw


CONTRASTIVE = {
    "method": "contrastive", "train_layers": 0, "full_head": {"info_nce": 1}, "batch_size": 16_384, "steps": 1,
    "learning_rate": 0.1,
}  # fmt: skip
RERANKER = {"name": "ce", "kind": "reranker", "losses": {"bce": 1}, "steps": 1, "learning_rate": 0.1}
# Each of these once passed `validate`. Every number of a recipe that memory depends on is here.
TOO_LARGE: dict[str, Any] = {
    "corpus.deduplicate.bands": LARGE,
    "corpus.deduplicate.rows": LARGE,
    "corpus.deduplicate.words": LARGE,
    "corpus.deduplicate": {"bands": 256, "rows": 32},
    "corpus.decontaminate": {"sets": [{"name": "own", "path": "./eval"}], "words": LARGE},
    "corpus.augment.max_sentences": LARGE,
    "corpus.clean.document.max_chars": 10**30,
    "corpus.sources.0.limit": 10**30,
    "teachers.0.unit_rows": LARGE,
    "teachers.0.max_length": LARGE,
    "teachers.0.max_batch_tokens": LARGE,
    "teachers.0.weight": 1e300,
    "teachers.1.dim": LARGE,
    "teachers.1.max_features": LARGE,
    "teachers.1": {"name": "lsa", "kind": "lsa", "licence": "MIT", "dim": 4096, "max_features": 1_000_000},
    "teachers.1.seed": 2**70,
    "student.max_length": LARGE,
    "student.matryoshka_dims": [LARGE],
    "student.head_hidden": LARGE,
    "stages.0.batch_size": LARGE,
    "stages.0.batch_tokens": LARGE,
    "stages.0.micro_batch_size": LARGE,
    "stages.0.steps": 10**30,
    "stages.0.weight_decay": 1e300,
    "stages.0.full_head": {"cosine": 1e300},
    "stages.1.full_head": {"relative_similarity": {"weight": 1, "margin": 1e300}},
    "stages.2.matryoshka_heads": {"similarity": 1e300},
    "stages.0": {**CONTRASTIVE, "hard_negatives": 100},
    "retrievers": [{**RERANKER, "batch_size": 16_384, "candidates": 1000}],
    "release.gate": {"gain": 101},
    "evaluation.held_out.max_documents": LARGE,
    "evaluation.seeds": [2**70],
    "redistil": {"retention_days": 1e300},
    "seed": 2**70,
}
SAID = ("less than or equal", "fit in memory", "give a smaller number")


@pytest.mark.parametrize("key", TOO_LARGE)
def test_a_number_that_does_not_fit_in_memory_is_refused(key: str, raw: dict[str, Any], tmp_path: Path):
    parse_recipe(raw, tmp_path / "tiny.yaml")
    with pytest.raises(RecipeError) as caught:
        parse_recipe(changed(raw, key, TOO_LARGE[key]), tmp_path / "tiny.yaml")
    assert f"tiny.yaml: {key.split('.', maxsplit=1)[0]}" in caught.value.message
    assert any(said in caught.value.message for said in SAID)


FAIL_LATER: dict[str, tuple[str, Any, str]] = {
    "no dev texts": ("corpus.dev", 0, "corpus.dev: Input should be greater than 0"),
    "a gain that no score can have": ("release.gate", {"gain_over_release": 1e9}, "gain_over_release: .* equal to 100"),
    "a gain of a schedule that no score can have": ("redistil", {"min_gain": -1e9}, "min_gain: .* equal to -100"),
    "no texts for the held-out tasks": ("corpus.test", 0, "corpus.test is 0, and held_out tasks are made of test"),
    "a long name": ("name", "a" * 300, "name: String should have at most 64 characters"),
    "a long name of a source": ("corpus.sources.0.name", "a" * 300, "sources.0.name: .* at most 64 characters"),
    "a long name of a teacher": ("teachers.0.name", "a" * 300, "teachers.0.name: .* at most 64 characters"),
}


@pytest.mark.parametrize("case", FAIL_LATER)
def test_what_can_only_fail_later_is_refused_with_the_recipe(case: str, raw: dict[str, Any], tmp_path: Path):
    key, value, message = FAIL_LATER[case]
    with pytest.raises(RecipeError, match=message):
        parse_recipe(changed(raw, key, value), tmp_path / "tiny.yaml")


def test_a_language_that_is_not_detected_is_refused_before_a_run(
    raw: dict[str, Any], tmp_path: Path, workspace: Workspace
):
    recipe = parse_recipe(changed(raw, "corpus.clean.languages", ["en", "EN"]), tmp_path / "tiny.yaml")
    with pytest.raises(LanguageError, match=r"languages: 'EN' is not a language that is detected; .* en, "):
        check_recipe(recipe, workspace)


@pytest.mark.parametrize("split", ["dev", "test"])
def test_a_split_of_less_than_one_text_is_refused_before_a_run(
    split: str, raw: dict[str, Any], tmp_path: Path, workspace: Workspace
):
    recipe = parse_recipe(changed(raw, f"corpus.{split}", 0.001), tmp_path / "tiny.yaml")
    with pytest.raises(RecipeError, match=rf"{split} is to have 0\.001 of at most 700 texts, less than one"):
        check_recipe(recipe, workspace)


def test_paraphrases_that_change_no_prompt_are_named(raw: dict[str, Any], tmp_path: Path):
    raw["evaluation"]["paraphrases"] = True
    (remark,) = remarks(parse_recipe(raw, tmp_path / "tiny.yaml"))
    assert remark.startswith("evaluation.paraphrases has no effect")
    raw["student"]["prompts"]["s2p_query"] = "Instruct: Given a web search query, retrieve relevant passages.\nQuery: "
    assert remarks(parse_recipe(raw, tmp_path / "tiny.yaml")) == []


def test_a_recipe_without_test_texts_may_have_other_tasks(raw: dict[str, Any], tmp_path: Path):
    raw["corpus"]["test"], raw["evaluation"] = 0, {"tasks": ["STSBenchmark"]}
    assert parse_recipe(raw, tmp_path / "tiny.yaml").corpus.test == 0
