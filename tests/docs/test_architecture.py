"""The kinds of docs/architecture.md run as they are printed: a recipe uses all of them, in a process of its own."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
KINDS = [block for block in BLOCKS if "register" in block]
USE = """
import logging, sys
from pathlib import Path
from stella_assets.core.devices import Compute
from stella_assets.core.runner import Runner
from stella_assets.core.step import upstream
from stella_assets.recipe import Graph, parse_recipe, read_raw
from stella_assets.storage.workspace import Workspace

raw = read_raw(Path("examples/small.yaml"))
raw["corpus"]["sources"] = [{"name": "numbers", "kind": "squares", "count": 300, "licence": "MIT"}]
raw["corpus"]["deduplicate"] = None
raw["corpus"]["clean"] = {"document": {"max_repetition": 1.0}}
raw["teachers"] = [{"name": "letters", "kind": "letters", "licence": "MIT"}]
raw["student"] |= {"kind": "last_token", "matryoshka_heads": "independent"}
raw["stages"] = [
    {"method": "rounds", "rounds": 2, "train_layers": 0, "full_head": {"cosine": 1, "worst_pair": 0.1},
     "matryoshka_heads": {"worst_pair": 1}, "batch_size": 32, "steps": 4, "learning_rate": 0.001},
]
raw["evaluation"] = {"tasks": [], "custom_tasks": [{"name": "Pairs", "kind": "linear_sts", "path": "pairs.parquet"}]}
raw["release"]["dimension"] = 26

import polars as pl

folder = Path(sys.argv[1])
texts = [f"The square of {number}." for number in range(40)]
pl.DataFrame({"sentence1": texts, "sentence2": texts[::-1], "score": [float(n) for n in range(40)]}).write_parquet(
    folder / "pairs.parquet"
)
terms = {"distribution": "internal", "url": "https://example.com", "read_on": "2026-11-27"}
far = {"name": "far", "kind": "api", "licence": "MIT", "service": {"dialect": "ollama", "model": "m", "dimensions": 8}}
far |= {"key": None, "terms": terms}
internal = {**raw["release"], "distribution": "internal"}
assert parse_recipe({**raw, "teachers": [far], "release": internal}, folder / "small.yaml").teachers[0].check() == 8
words = [{"name": "words", "kind": "shared_words"}]
asked = {**raw["corpus"], "sources": [{**raw["corpus"]["sources"][0], "pairs": "first_sentence"}]}
(scorer,) = parse_recipe({**raw, "corpus": asked, "pair_scores": words}, folder / "small.yaml").pair_scores
assert scorer.open(None).score_pairs(["a b"], ["b c"]).tolist() == [1]
late = {"name": "late", "kind": "long_queries", "losses": {"hinge": 1}, "steps": 2, "learning_rate": 0.0001}
(retriever,) = parse_recipe({**raw, "corpus": asked, "retrievers": [late]}, folder / "small.yaml").retrievers
assert retriever.query_length == 256
assert [loss.loss for loss in retriever.losses.weighted()] == ["hinge"]
graph = Graph(parse_recipe(raw, folder / "small.yaml"))
runner = Runner(Workspace(folder / "var"), logging.getLogger("test"), Compute(engine=ThreadsEngine(threads=2)))
for step in upstream(graph.scores["stage_1"]):
    runner.make(step)
table = pl.read_parquet(runner.require(graph.scores["stage_1"]).folder / "scores.parquet")
print("USED", table["task"].unique().to_list(), table["dimension"].unique().sort().to_list())
"""


@pytest.mark.slow
def test_every_kind_of_thing_has_an_example_that_a_recipe_can_use(tmp_path: Path):
    registries = {re.search(r"@(\w+)\.register", block)[1] for block in KINDS}
    students = {"STUDENTS", "LOSSES", "STAGES", "RETRIEVERS", "LIST_LOSSES"}
    assert registries == students | {"SOURCES", "DIALECTS", "TEACHERS", "PAIR_SCORERS", "TASK_KINDS", "ENGINES"}
    done = subprocess.run(
        [sys.executable, "-c", "\n".join([*KINDS, USE]), str(tmp_path)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "USED ['Pairs'] [16, 26]" in done.stdout


def test_the_graph_of_the_page_is_built_as_it_is_printed(capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    (block,) = [block for block in BLOCKS if "register" not in block]
    exec(compile(block, "docs/architecture.md", "exec"), {})  # noqa: S102 (our own page)
    said = capsys.readouterr().out
    assert "release" in said
    assert "concatenated_vectors" in said


def test_every_folder_and_registry_of_the_page_exists():
    for folder in re.findall(r"`((?:stella_assets|storage|pipelines|tests)/[\w/]*/)`", PAGE):
        assert (ROOT / folder).is_dir(), folder
