"""A graph builds each step once, wires derived steps under names of their own, and finds steps by typed names."""

import ast
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from stella_assets.core import step as core_step
from stella_assets.core.step import upstream
from stella_assets.recipe import Graph, Recipe, parse_recipe, read_recipe
from stella_assets.recipe.graph import UnknownStepError
from stella_assets.recipe.read import RecipeError

ROOT = Path(__file__).parents[2]


def test_the_demo_has_25_steps_and_each_is_built_once(monkeypatch: pytest.MonkeyPatch):
    built: list[str] = []
    initialise = core_step.Step.__init__

    def counted(self: core_step.Step, *arguments: Any, **named: Any) -> None:
        initialise(self, *arguments, **named)
        built.append(self.name)

    monkeypatch.setattr(core_step.Step, "__init__", counted)
    graph = Graph(read_recipe(ROOT / "recipes" / "demo.yaml"))
    assert len(graph.steps) == 25
    assert sorted(built) == sorted(step.name for step in graph.steps)
    assert graph.steps.index(graph.cleaned) < graph.steps.index(graph.corpus) < graph.steps.index(graph.release)


def test_sources_that_give_pairs_add_one_step_and_change_no_identity_of_the_others(raw: dict[str, Any], tmp_path: Path):
    before = {step.name: step.settings for step in Graph(parse_recipe(raw, tmp_path / "tiny.yaml")).steps}
    (tmp_path / "faq.csv").write_text("q,a\n")
    faq = {
        "name": "faq",
        "kind": "csv",
        "path": "./faq.csv",
        "licence": "MIT",
        "columns": {"query": "q", "positive": "a"},
    }
    raw["corpus"]["sources"].append(faq)
    graph = Graph(parse_recipe(raw, tmp_path / "tiny.yaml"))
    after = {step.name: step.settings for step in graph.steps}
    assert after.keys() - before.keys() == {"pairs"}
    assert graph.pairs is not None
    assert graph.corpus in upstream(graph.pairs)
    assert after["cleaned_texts"]["sources"][:1] == before["cleaned_texts"]["sources"]
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"cleaned_texts", "duplicates", "corpus"}


def test_mined_negatives_are_a_step_between_the_vectors_and_contrastive_stages(raw: dict[str, Any], tmp_path: Path):
    raw["mined_negatives"] = {"teacher": "minilm"}
    with pytest.raises(RecipeError, match="mined_negatives are for pairs of texts, and no source gives any"):
        parse_recipe(raw, tmp_path / "tiny.yaml")
    raw["corpus"]["sources"][0]["pairs"] = "first_sentence"
    raw["stages"][2] |= {"method": "contrastive", "full_head": {"cosine": 1, "info_nce": 1}, "hard_negatives": 4}
    graph = Graph(parse_recipe(raw, tmp_path / "tiny.yaml"))
    assert graph.mined_negatives is not None
    assert {graph.pairs, graph.concatenation} <= set(upstream(graph.mined_negatives))
    assert graph.mined_negatives in graph.stages[2].dependencies
    assert graph.mined_negatives not in upstream(graph.stages[1])
    raw["mined_negatives"] = {"teacher": "other"}
    with pytest.raises(RecipeError, match=r"mined_negatives\.teacher names 'other'; the recipe has minilm, lsa"):
        parse_recipe(raw, tmp_path / "tiny.yaml")


def test_all_steps_have_a_presentation_and_a_name_of_their_own(tiny: Recipe):
    steps = Graph(tiny).steps
    assert len({step.name for step in steps}) == len(steps)
    assert all(step.presentation and step.presentation.description for step in steps)
    pools = {step.name: step.pool for step in steps if step.pool}
    assert pools == {
        "teacher_vectors/minilm": "encoding",
        "teacher_vectors/lsa": "encoding",
        **{f"stage_{number}": "training" for number in (1, 2, 3)},
    }


def test_seeds_have_steps_of_their_own(raw: dict[str, Any], tmp_path: Path):
    raw["evaluation"]["seeds"] = [1, 2]
    graph = Graph(parse_recipe(raw, tmp_path / "tiny.yaml"))
    names = {step.name for step in graph.steps}
    for seed in (1, 2):
        assert {f"seed_{seed}/stage_{number}" for number in (1, 2, 3)} | {f"scores/seed_{seed}"} <= names
        assert [step.settings["seed"] for step in graph.seeds[seed][:-1]] == [seed] * 3
        assert [step.stored_as for step in graph.seeds[seed]] == [
            *(f"stage_{number}" for number in (1, 2, 3)),
            f"scores/seed_{seed}",
        ]
        assert graph.seeds[seed][-1] in upstream(graph.report)


def test_people_select_steps_by_name_or_first_part(tiny: Recipe):
    graph = Graph(tiny)
    assert graph.select(["corpus"]) == [graph.corpus]
    assert graph.select(["tiny/stage_1"]) == [graph.stages[0]]
    assert set(graph.select(["teacher_vectors"])) == set(graph.teachers.values())
    assert set(graph.scores.values()) < set(graph.select(["scores"]))
    with pytest.raises(UnknownStepError, match=r"nothing: recipe 'tiny' has no such asset\. It has cleaned_texts"):
        graph.select(["nothing"])


def test_no_module_outside_the_one_that_declares_it_names_an_asset():
    declared: dict[str, set[str]] = {}
    literals: dict[str, set[str]] = {}
    for path in (*ROOT.glob("stella_assets/**/*.py"), *ROOT.glob("pipelines/**/*.py"), *ROOT.glob("storage/*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        docstrings = {
            id(node.body[0].value)
            for node in ast.walk(tree)
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node)
        }
        module = path.relative_to(ROOT).as_posix()
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
                literals.setdefault(node.value, set()).add(module)
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Step":
                for keyword in node.keywords:
                    if keyword.arg == "name" and isinstance(keyword.value, ast.Constant):
                        declared.setdefault(keyword.value.value, set()).add(module)
    assert len(declared) >= 10
    common = {"corpus", "release", "duplicates", "contamination", "evaluation_texts", "pairs"}  # keys and packages, too
    elsewhere = {
        name: places
        for name, modules in declared.items()
        if name not in common
        and (places := {p for p in literals.get(name, set()) - modules if not p.endswith("/tables.py")})
    }
    assert elsewhere == {}


def test_nothing_outside_a_registry_asks_which_kind_a_teacher_is():
    pattern = re.compile(r"isinstance\(.*Teacher")
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in ROOT.glob("stella_assets/**/*.py")
        if "teachers/kinds" not in path.as_posix()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if pattern.search(line)
    ]
    assert found == []


def test_imports_point_one_way_and_have_no_cycle():
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports")], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
