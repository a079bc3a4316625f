"""What the model card tells people to do gives them the right vectors."""

import ast
import copy
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from stella_assets.core.devices import Compute
from stella_assets.recipe import Graph
from stella_assets.recipe.read import parse_recipe
from stella_assets.release.card import CardFigures, how_to_use, model_card, without_front_matter
from stella_assets.release.inputs import ReleaseInputs
from stella_assets.release.settings import ReleaseSettings
from stella_assets.students import DenseConfig
from stella_assets.teachers.snapshot import Layout
from tests.conftest import TINY
from tests.core.test_markup import HOSTILE, structure, summary_of, tokens
from tests.models import TEXTS


def settings(model: Path, **changes: object) -> DenseConfig:
    given = {**TINY["student"], "model": str(model), "keep_layers": None, "matryoshka_dims": [3, 2], **changes}
    return DenseConfig.model_validate(given)


def run_card(card: str, folder: Path) -> list[Any]:
    """The models that the card's code blocks end with, when the folder's path is filled in and nothing else."""
    models = []
    for block in re.findall(r"```python\n(.*?)```", card, re.DOTALL):
        names: dict[str, Any] = {}
        exec(block.replace("path/to/this/folder", str(folder)), names)  # noqa: S102 (the card's own code)
        models.append(names["model"])
    return models


@pytest.mark.parametrize("form", [{}, {"head_hidden": 12}, {"matryoshka_heads": "prefix"}])
def test_the_code_of_the_card_gives_the_default_and_another_dimension(published, tmp_path: Path, form: dict[str, Any]):
    config = settings(published("bert"), **form)
    student = config.initialise(24, 0, Compute())
    student.dtype = "float32"
    student.save(tmp_path, student.head_of(3), config.prompts)
    release = ReleaseSettings(dimension=3, licence="MIT")
    default, other = run_card(how_to_use(config, release, list(student.dimensions.values())), tmp_path)
    for model, dim in ((default, 3), (other, 24)):
        expected = student.encode(TEXTS[:6], student.head_of(dim))
        np.testing.assert_allclose(model.encode(TEXTS[:6]), expected, atol=1e-5)


def test_the_card_names_both_folders_of_a_head_of_two_layers(tmp_path: Path):
    config = settings(tmp_path, head_hidden=12)
    card = how_to_use(config, ReleaseSettings(dimension=3, licence="MIT"), [24, 3, 2])
    assert "in place of `2_Dense_3` and `3_Dense_3`" in card
    alone = how_to_use(config, ReleaseSettings(dimension=3, licence="MIT"), [3])
    assert "Another dimension" not in alone


def test_the_card_says_whether_the_models_own_code_has_to_be_trusted(tmp_path: Path):
    release = ReleaseSettings(dimension=3, licence="MIT")
    assert "trust_remote_code" not in how_to_use(settings(tmp_path), release, [3])
    trusted = settings(tmp_path, trust_remote_code=True, revision="0" * 40)
    card = how_to_use(trusted, release, [24, 3])
    assert card.count('SentenceTransformer("path/to/this/folder", trust_remote_code=True)') == 2


def card_of(text: str, raw: dict[str, Any]) -> str:
    """The card of a release whose free texts are all the same."""
    raw |= {"description": text}
    raw["release"]["licence"] = text
    for teacher in raw["teachers"]:
        teacher["licence"] = text
    raw["student"]["prompts"] = {"query": text}
    raw["student"]["query_prompts"] = ["query"]
    raw["evaluation"]["prompts"] = {"query": "query"}
    recipe = parse_recipe(raw, Path("tiny.yaml"))
    graph = Graph(recipe)
    inputs = ReleaseInputs(
        description=recipe.description,
        recipe_digest=recipe.digest,
        settings=recipe.release.model_copy(update={"dimension": 8}),
        student=recipe.student,
        prompts={},
        teachers=recipe.teachers,
        sources=recipe.corpus.sources,
        decontaminate=None,
        corpus=graph.corpus,
        vectors=graph.teachers,
        concatenation=graph.concatenation,
        tasks=graph.tasks,
        # The summary has one stage.
        stages=graph.stages[:1],
        report=graph.report,
        gate=graph.gate,
    )
    loaders = [{"loader": text, "dimension": 8, "mean_cosine": 1.0}]
    dims = {teacher.name: 8 for teacher in recipe.teachers}
    layout = Layout(tuple(dims), tuple(dims.values()), tuple(1.0 for _ in dims))
    return model_card("tiny", inputs, CardFigures([8], 10**6, loaders, summary_of(text), [(text, 3)], layout, dims, []))


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_card_shows_data_and_obeys_none(kind: str, raw: dict[str, Any]):
    text = HOSTILE[kind]
    card, harmless = card_of(text, copy.deepcopy(raw)), card_of("plain", copy.deepcopy(raw))
    assert structure(without_front_matter(card)) == structure(without_front_matter(harmless))
    front = yaml.safe_load(card.removeprefix("---\n").partition("\n---\n")[0])
    assert list(front) == ["library_name", "pipeline_tag", "license", "tags", "model-index"]
    assert front["license"] == text.lower()
    [result] = front["model-index"][0]["results"]
    assert result["dataset"] == {"name": text, "type": f"mteb/{text}", "revision": text}
    assert result["metrics"] == [{"type": text, "value": 50.0}]
    code = [token.content for token in tokens(card) if token.type == "fence"]
    assert len(code) == 1
    [prompt] = [
        c.content for t in tokens(card) for c in t.children or () if c.type == "code_inline" and c.content[0] == '"'
    ]
    assert ast.literal_eval(prompt) == text


def api_teacher(distribution: str) -> dict[str, Any]:
    """A teacher that nothing asks here."""
    terms = {"distribution": distribution, "url": "https://example.com/terms", "read_on": "2026-11-27"}
    service = {"dialect": "openai", "model": "text-embedding-3-small", "dimensions": 8}
    return {"kind": "api", "name": "paid", "licence": "proprietary", "key": "A_KEY", "service": service, "terms": terms}


def test_the_card_states_the_terms_of_teachers_and_that_a_release_is_internal(raw: dict[str, Any]):
    raw["teachers"].append(api_teacher("internal"))
    public = card_of("plain", copy.deepcopy(raw))
    raw["release"]["distribution"] = "internal"
    internal = card_of("plain", raw)
    for card in (public, internal):
        assert "| paid | internal | https://example.com/terms | 2026-11-27 |" in card
    assert "not to be published" not in public
    assert "**Internal: this model is not to be published or passed on.**" in internal
    tags = [yaml.safe_load(card.removeprefix("---\n").partition("\n---\n")[0])["tags"] for card in (public, internal)]
    assert ["internal" in of for of in tags] == [False, True]


def test_a_card_of_teachers_without_terms_has_no_table_of_them(raw: dict[str, Any]):
    assert "terms of its provider" not in card_of("plain", raw)


def test_the_card_says_which_vectors_nobody_checked(raw: dict[str, Any]):
    raw["teachers"].append(api_teacher("allowed"))
    checked = card_of("plain", copy.deepcopy(raw))
    raw["teachers"][-1]["trusted"] = "computed by | ourselves in March"
    believed = card_of("plain", raw)
    assert "nobody compared" not in checked
    assert "Vectors that were imported, and that nobody compared with what the model gives:" in believed
    assert r"| paid | computed by \| ourselves in March |" in believed
