"""The folder gives the same vectors in every library that loads it."""

import sys
from pathlib import Path

import pytest

from stella_assets.core.devices import Compute
from stella_assets.release.licences import obligations
from stella_assets.release.onnx import export_onnx, float_file, int8_file
from stella_assets.release.reload import ReloadError, cosines, load_and_encode, vectors_of_release
from stella_assets.students.dense.model import DenseStudent

TEXTS = ["Return a sorted copy of an array.", "Open a network connection.", "sort", "word " * 60]


@pytest.fixture(params=["mean", pytest.param("cls", marks=pytest.mark.slow)])
def student(request, tiny) -> DenseStudent:
    made = tiny.student.model_copy(update={"pooling": request.param}).initialise(96, 0, Compute())
    made.dtype = "float32"
    return made


def test_every_loader_and_head_gives_the_same_vectors(student, tmp_path):
    student.save(tmp_path, student.head_of(64), {})
    export_onnx(student, 64, tmp_path)
    found = load_and_encode(tmp_path, TEXTS)
    expected = {str(dim): student.encode(TEXTS, head) for head, dim in student.dimensions.items()}
    least = {name: cosines(found[name], expected[name.rpartition("_")[2]]).min() for name in found}
    assert set(least) == {
        *(f"sentence_transformers_{dim}" for dim in (96, 64, 32)),
        *("transformers_64", "onnx_64", "onnx_int8_64"),
    }
    assert least.pop("onnx_int8_64") > 0.97
    assert min(least.values()) > 0.99999


@pytest.mark.slow
def test_a_graph_is_the_same_bytes_each_time(student, tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        export_onnx(student, 64, tmp_path / name)
    for file in (float_file(64), int8_file(64)):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_a_graph_holds_no_path_of_the_machine_that_made_it(student, tmp_path):
    export_onnx(student, 64, tmp_path)
    for file in (float_file(64), int8_file(64)):
        content = (tmp_path / file).read_bytes()
        for path in (Path(__file__).parents[2], Path(sys.prefix)):
            assert str(path).encode() not in content


def test_a_folder_that_cannot_be_loaded_is_not_released(student, tmp_path):
    folder: Path = tmp_path / "model"
    student.save(folder, student.head_of(64), {})
    (folder / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(ReloadError, match="cannot be loaded in a clean process"):
        vectors_of_release(folder, TEXTS, tmp_path, trust_remote_code=False)


@pytest.mark.parametrize(
    ("licence", "asked"),
    [
        ("Apache-2.0", "keep licence and attribution"),
        ("CC-BY-NC-4.0", "no commercial use; keep licence and attribution"),
        ("CC-BY-SA-4.0", "keep licence and attribution; share under the same terms"),
        ("proprietary", "as agreed with the owner; providers of APIs restrict training"),
        ("Zlib", "unknown here: read it"),
        ("MIT", "keep licence and attribution"),
        ("BSD-3-Clause", "keep licence and attribution"),
        ("Non-commercial research licence", "no commercial use"),
        ("non commercial", "no commercial use"),
        ("NonCommercial", "no commercial use"),
        ("Limited use", "unknown here: read it"),  # not the MIT licence
        ("AGPL-3.0-only", "share under the same terms"),
        ("llama3.1", "as the model's own terms of use say"),
    ],
)
def test_obligations_of_a_licence(licence, asked):
    assert obligations(licence) == asked
