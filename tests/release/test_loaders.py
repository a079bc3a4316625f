"""A folder is not released unless every library that loads it gives the student's vectors."""

import math
import shutil
from pathlib import Path
from typing import Any

import pytest

from stella_assets.core.devices import Compute
from stella_assets.core.models import code_digest
from stella_assets.release.loaders import SAME, LoaderError, compare_loaders, require_same, worst_loader
from stella_assets.release.reload import load_and_encode
from stella_assets.students import DenseConfig
from tests.models import TEXTS, build


def row(loader: str, least: float) -> dict[str, Any]:
    return {"loader": loader, "dimension": 64, "texts": 4, "least_cosine": least, "mean_cosine": least}


def test_a_loader_whose_vectors_are_not_numbers_is_refused():
    good, broken = row("transformers", 1.0), row("onnx", math.nan)
    for rows in ([good, broken], [broken, good]):
        assert worst_loader(rows) is broken
        with pytest.raises(LoaderError, match=r"onnx gives other vectors of 64 dimensions .* cosine of nan"):
            require_same("release", rows)


def test_a_loader_that_differs_is_refused_and_int8_weights_may_differ():
    same = [row("transformers", 1.0), row("sentence_transformers", SAME), row("onnx_int8", 0.98)]
    require_same("release", same)
    with pytest.raises(LoaderError, match=r"transformers gives other vectors .* 0\.999000"):
        require_same("release", [*same, row("transformers", 0.999)])


@pytest.mark.parametrize("default", [2, 3, 32])
def test_a_dimension_that_is_also_part_of_a_folders_name_is_loaded(published, tmp_path: Path, default: int):
    config = DenseConfig(model=str(published("bert")), matryoshka_dims=(32, 3, 2), head_hidden=12, max_length=32)
    student = config.initialise(64, 0, Compute())
    student.dtype = "float32"
    student.save(tmp_path, student.head_of(default), {})
    shapes = {name: vectors.shape[1] for name, vectors in load_and_encode(tmp_path, TEXTS[:2]).items()}
    assert shapes == {
        **{f"sentence_transformers_{dim}": dim for dim in (64, 32, 3, 2)},
        f"transformers_{default}": default,
    }


def test_prompts_and_every_head_are_compared_in_a_clean_process(published, tmp_path: Path):
    config = DenseConfig(model=str(published("bert")), matryoshka_dims=(3,), max_length=32)
    student = config.initialise(24, 0, Compute())
    student.dtype = "float32"
    student.save(tmp_path / "model", student.head_of(3), {})
    rows = compare_loaders(student, tmp_path / "model", TEXTS[:2], {"query": "Query: "}, tmp_path, trust=False)
    assert {(row["loader"], row["dimension"], row["texts"]) for row in rows} == {
        ("sentence_transformers", 24, 4), ("sentence_transformers", 3, 4), ("transformers", 3, 4),
    }  # fmt: skip
    require_same("release", rows)


def test_a_model_with_code_of_its_own_is_loaded_without_the_folder_that_it_came_from(tmp_path: Path):
    base, folder = build("custom_code", tmp_path), tmp_path / "model"
    trust = {"trust_remote_code": True, "code_digest": code_digest(base)}
    config = DenseConfig(model=str(base), matryoshka_dims=(), max_length=32, keep_layers=(0, 2), **trust)
    student = config.initialise(24, 0, Compute())
    student.dtype = "float32"
    student.save(folder, student.head_of(24), {})
    shutil.rmtree(base)
    require_same("release", compare_loaders(student, folder, TEXTS[:4], {}, tmp_path, trust=True))
