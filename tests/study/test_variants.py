"""Variants: what a grid asks for, names that describe a variant completely, and mistakes that are reported early."""

import re
from pathlib import Path

import pytest

from stella_assets.recipe import Recipe, parse_recipe
from stella_assets.study.variants import Variant, VariantError, derive, read_grid


def test_a_grid_is_a_product_with_seeds():
    grid = ["stages.*.learning_rate=x0.5,x2", "stages.2.full_head={cosine: 1},{l2: 1}"]
    labels = [variant.name for variant in read_grid(grid, 2)]
    assert len(labels) == len(set(labels)) == 8
    assert labels[0] == "stages.*.learning_rate=x0.5; stages.2.full_head={cosine: 1}; seed=0"


def test_each_path_can_be_changed_by_itself():
    labels = [variant.label for variant in read_grid(["a=1,2", "b=3"], 1, each=True)]
    assert labels == ["as it is", "a=1", "a=2", "b=3"]


def test_a_name_describes_a_variant_completely():
    for variant in read_grid(["stages.*.learning_rate=x0.5", "stages.2.full_head={cosine: 1, l2: 1}"], 3):
        assert Variant.parse(variant.name) == variant


def test_values_are_set_or_multiplied(tiny: Recipe):
    changed = derive(tiny, Variant((("stages.*.learning_rate", "x3"), ("stages.2.steps", "x0.5")), seed=4))
    assert [s.learning_rate for s in changed.stages] == pytest.approx([3 * (s.learning_rate or 0) for s in tiny.stages])
    assert [s.steps for s in changed.stages] == [40, 12, 6]
    assert changed.seed == 4
    preset = derive(tiny, Variant((("stages", "{preset: paper, texts: 1000}"),)))
    assert sum(stage.texts or 0 for stage in preset.stages) == pytest.approx(1000, abs=2)


def test_a_study_has_seeds_of_its_own(raw: dict, tmp_path: Path):
    raw["evaluation"]["seeds"] = [4]
    changed = derive(parse_recipe(raw, tmp_path / "tiny.yaml"), Variant(seed=4))
    assert (changed.seed, changed.evaluation.seeds) == (4, ())


def test_the_variant_without_changes_is_the_recipe(tiny: Recipe):
    assert derive(tiny, Variant()) == tiny
    assert derive(tiny, Variant()).digest == tiny.digest


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("stages.7.steps", "3"), "recipe 'tiny' has no such key"),
        (("stages.0.stepz", "3"), "recipe 'tiny' has no such key"),
        (("stages.0.schedule", "x2"), "'cosine' is not a number to multiply"),
        (("stages.0.learning_rate", "-1"), "stages.0.learning_rate: Input should be greater than 0"),
    ],
)
def test_a_change_that_the_recipe_refuses_is_reported(tiny: Recipe, change: tuple[str, str], message: str):
    with pytest.raises(VariantError, match=message):
        derive(tiny, Variant((change,)))


@pytest.mark.parametrize("name", ["steps", "a=", "a=1; seed=x"])
def test_a_name_that_describes_no_variant_is_refused(name: str):
    with pytest.raises(VariantError):
        Variant.parse(name)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("stages.1.steps", "x2abc"), "is not a number after `x`"),
        (("stages.1.steps", "x1e400"), "is not a number after `x`"),
        (("stages.1.steps", "[1"), "the value is not YAML"),
        (("stages.1.steps", "x²"), "valid integer"),
        (("stages.².steps", "3"), "has no such key"),
        (("stages.1.full_head", "{[a]: 1}"), "the value is not YAML"),
    ],
)
def test_a_value_that_cannot_be_read_is_named_with_its_path(tiny: Recipe, change: tuple[str, str], said: str):
    with pytest.raises(VariantError, match=re.escape(said)) as refused:
        derive(tiny, Variant((change,)))
    assert change[0] in refused.value.message
    assert refused.value.remedy


def test_a_grid_without_a_value_and_a_seed_that_is_no_number_are_refused():
    with pytest.raises(VariantError, match="--grid 'a=,': has no value"):
        read_grid(["a=,"], 1)
    with pytest.raises(VariantError, match="seed '²' is not a whole number"):
        Variant.parse("a=1; seed=²")
