"""Bad input ends with a message that a newcomer can act on and exit code 2, before expensive work."""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stella_assets.storage.errors import DiskSpaceError
from stella_assets.storage.workspace import Workspace
from tests.conftest import write_recipe

STELLA = str(Path(sys.executable).with_name("stella"))


def stella(workspace: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "STELLA_HOME": str(workspace)}
    return subprocess.run([STELLA, *arguments], capture_output=True, text=True, env=environment, check=False)


def own_texts(raw: dict[str, Any], **source: Any) -> None:
    raw["corpus"]["sources"] = [{"name": "mine", "licence": "CC0-1.0", **source}]


BAD: dict[str, tuple[Callable[[dict[str, Any]], Any], list[str]]] = {
    "misspelt key": (lambda r: r.update(teachr=r.pop("teachers")), ["teachr: there is no such key", "`teachers`"]),
    "missing file": (lambda r: own_texts(r, kind="text", path="./none.txt"), ["none.txt", "matches no file"]),
    "no evaluation set": (
        lambda r: r["corpus"].update(decontaminate={"sets": [{"name": "own", "path": "./absent"}]}),
        ["absent: evaluation set 'own' has no Parquet file there"],
    ),
    "not UTF-8": (lambda r: own_texts(r, kind="text", path="./latin.txt"), ["latin.txt:1: not utf-8", "`encoding`"]),
    "unknown column": (
        lambda r: own_texts(r, kind="parquet", path="./a.parquet", columns={"text": "txt"}),
        ["no column 'txt'; it has text"],
    ),
    "teacher folder": (lambda r: r["teachers"][0].update(model="./no-teacher"), ["no-teacher: no such model folder"]),
    "teacher package": (lambda r: r["teachers"][0].update(model="package:no_such"), ["'no_such' is not installed"]),
    "no name of a package": (lambda r: r["student"].update(model="package:../x"), ["package '..' is not installed"]),
    "no name at all": (lambda r: r["student"].update(model="package:"), ["package '' is not installed"]),
    "not a model folder": (lambda r: r["teachers"][0].update(model="./"), ["neither modules.json nor config.json"]),
    "short dimension": (
        lambda r: r["student"].update(matryoshka_dims=[500, 64], matryoshka_heads="prefix"),
        ["matryoshka_dims 500: with matryoshka_heads `prefix`", "the first stage teaches the first 416 only"],
    ),
    "release dimension": (
        lambda r: r["release"].update(dimension=100),
        ["100 is not one of the student's heads (416, 64, 32)"],
    ),
    "layer": (lambda r: r["student"].update(keep_layers=[0, 9]), ["keep_layers [0, 9]", "layers 0 to 5"]),
    "length": (lambda r: r["student"].update(max_length=9999), ["max_length 9999 is above the 512 positions"]),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_before_anything_runs(case: str, tmp_path: Path, raw: dict[str, Any]):
    (tmp_path / "latin.txt").write_bytes("déjà vu".encode("latin1"))
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "a.parquet")
    change, expected = BAD[case]
    change(raw)
    done = stella(tmp_path / "workspace", "run", str(write_recipe(tmp_path, raw)))
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    for part in expected:
        assert part in done.stderr
    assert not (tmp_path / "workspace" / "artefacts").exists()


@pytest.mark.slow
def test_a_corpus_that_filters_down_to_nothing_fails_with_its_funnel(tmp_path: Path, raw: dict[str, Any]):
    (tmp_path / "a.txt").write_text("short\n\ntiny\n")
    own_texts(raw, kind="text", path="./a.txt")
    done = stella(tmp_path / "workspace", "run", str(write_recipe(tmp_path, raw)))
    assert done.returncode == 2
    assert "no training texts are left (mine: read 2; mine: too short 2)" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Dependencies for step" not in done.stderr  # steps that were not reached are not reported


def test_a_failing_check_is_reported(tmp_path: Path, raw: dict[str, Any]):
    sentence = "This is sentence number {} of the texts, and it is long enough."
    (tmp_path / "a.txt").write_text("\n".join(sentence.format(i) for i in range(30)))
    own_texts(raw, kind="text", path="./a.txt", unit="line")
    raw["corpus"]["dev"] = 1e-9
    done = stella(tmp_path / "workspace", "run", str(write_recipe(tmp_path, raw)), "--select", "corpus")
    assert done.returncode == 1
    assert "check failed corpus every_split_has_texts: splits: {" in done.stderr


def test_a_workspace_that_cannot_be_a_folder_is_named(tmp_path: Path):
    (tmp_path / "file").touch()
    done = stella(tmp_path / "file", "status", "demo")
    assert done.returncode == 2
    assert f"{tmp_path}/file: cannot be used as STELLA_HOME (File exists)" in done.stderr


def test_an_unknown_recipe_or_asset_is_answered_with_those_that_exist(tmp_path: Path, raw: dict[str, Any]):
    recipe = str(write_recipe(tmp_path, raw))
    workspace = tmp_path / "workspace"
    unknown = stella(workspace, "run", "demmo")
    assert (unknown.returncode, "recipes/ has demo, " in unknown.stderr) == (2, True)
    asset = stella(workspace, "run", recipe, "--select", "stage_9")
    assert (asset.returncode, "has no such asset. It has cleaned_texts" in asset.stderr) == (2, True)
    report = stella(workspace, "report", recipe)
    assert (report.returncode, "there is no report" in report.stderr) == (1, True)


def test_a_port_in_use_is_reported_with_the_next_one(tmp_path: Path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = stella(tmp_path, "ui", "--port", str(port))
    assert done.returncode == 2
    assert f"port {port} on 127.0.0.1 is in use" in done.stderr
    assert f"stella ui --port {port + 1}" in done.stderr


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("no address", "STELLA_POSTGRES: is not an address of a database"),
        ("mysql://u:secret@127.0.0.1/x", "begins with mysql://. Write it as postgresql+psycopg2://"),
        (
            "postgresql+psycopg2://u:secret@127.0.0.1:1/x",
            "nothing answers at 127.0.0.1:1 (connection to server at",
        ),
    ],
)
def test_a_missing_database_is_named_without_its_password(
    address: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("STELLA_POSTGRES", address)
    done = stella(tmp_path, "pools")
    assert done.returncode == 2
    assert said in " ".join(done.stderr.split())
    assert "secret" not in done.stderr


def test_too_little_disk_space_is_reported_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage._replace(free=10 * 2**20))
    with pytest.raises(DiskSpaceError, match=r"recipe needs about 512 MiB and 10 MiB are free"):
        Workspace(tmp_path).require_space(512 * 2**20, "recipe")


def test_a_valid_recipe_is_confirmed_with_its_dimensions(tmp_path: Path, raw: dict[str, Any]):
    done = stella(tmp_path / "workspace", "validate", str(write_recipe(tmp_path, raw)))
    assert done.returncode == 0, done.stderr
    assert "Rehearsed: every stage trains a batch, and every loader gives the student's vectors" in done.stderr
    assert not (tmp_path / "workspace" / "artefacts").exists()
    assert "tiny: valid. 1 source, 2 teachers with 416 dimensions, 3 stages." in " ".join(done.stdout.split())
    assert "source docs: 100 rows were looked at, the first text is '" in done.stdout
