"""Teachers in a narrow cone are joined without their mean: measured once, kept with the snapshot, and used by all."""

import json
from pathlib import Path
from typing import Any

import mteb
import numpy as np
import pytest
import torch

from stella_assets.core.devices import Compute
from stella_assets.core.errors import UserError
from stella_assets.core.runner import Runner
from stella_assets.core.step import upstream
from stella_assets.evaluation.encoders import EncodeRequest
from stella_assets.evaluation.teacher_encoders import ConcatenationEmbedder, TeacherEmbedder
from stella_assets.recipe import Graph, parse_recipe
from stella_assets.storage.canonical import digest
from stella_assets.storage.workspace import Workspace
from stella_assets.teachers.catalogue import compare, describe, list_snapshots, open_snapshot
from stella_assets.teachers.centre import NARROW, measure_centre
from stella_assets.teachers.joining import concatenate
from stella_assets.teachers.measures import unit
from stella_assets.teachers.repair import _materials
from stella_assets.teachers.snapshot import Layout, Snapshot
from stella_assets.teachers.snapshot_measures import CONCATENATION, measure_snapshot
from stella_assets.teachers.transfer import export_snapshot
from stella_assets.training.targets import Spread, Targets
from tests.snapshots import Corpus, Teacher, vectors_of, write

DIM = 12


def cone(ids: list[str], _roles: list[str]) -> np.ndarray:
    """Vectors with a large part in common."""
    return unit(vectors_of(ids, DIM, "cone") + np.eye(DIM)[0] * 2).astype(np.float16)


def wide(ids: list[str], _roles: list[str]) -> np.ndarray:
    return vectors_of(ids, DIM, "wide")


CORPUS = Corpus(range(300))


def training_vectors(of: Any) -> np.ndarray:
    rows = CORPUS.table.to_pylist()
    return of([row["id"] for row in rows if row["split"] == "train"], []).astype(np.float64)


@pytest.mark.parametrize(
    ("of", "center", "joined", "expected"),
    [
        (cone, "auto", True, True),
        (wide, "auto", True, False),
        (cone, "auto", False, False),
        (cone, False, True, False),
        (wide, True, False, True),
    ],
)
def test_the_measured_spread_decides_unless_the_recipe_does(of: Any, center: Any, joined: bool, expected: bool):
    centre = measure_centre("t", center, CORPUS, of, joined=joined)
    block = training_vectors(of)
    pairs = (block @ block.T)[np.triu_indices(len(block), 1)]
    assert centre.mean_cosine == pytest.approx(pairs.mean(), abs=1e-5)
    assert (centre.mean_cosine > NARROW) == (of is cone)
    assert (centre.mean_D is not None) == expected
    if centre.mean_D is not None:
        np.testing.assert_allclose(centre.mean_D, block.mean(axis=0), atol=1e-7)


def test_a_mean_of_less_than_two_texts_is_refused():
    none = Corpus([0, 5])  # both are dev texts
    assert measure_centre("t", "auto", none, cone, joined=True).mean_D is None
    with pytest.raises(UserError, match="teacher 't': center is true, and the corpus has 0 training texts"):
        measure_centre("t", True, none, cone, joined=True)


def centred_snapshot(workspace: Workspace, tag: str = "one", **changes: Any) -> Snapshot:
    """`wide` at weight 1 and `cone` at weight 0.5, centred."""
    teachers = [Teacher("wide", DIM), Teacher("cone", DIM, weight=0.5)]
    for teacher, of in zip(teachers, (wide, cone), strict=True):
        centre = measure_centre(teacher.column.name, "auto", CORPUS, of, joined=True)
        teacher.column = type(teacher.column)(**{**vars(teacher.column), "fetch": of, "centre": centre, **changes})
    write(workspace, tag, CORPUS, *teachers)
    return Snapshot.open(workspace, "tiny", tag)


def expected_targets(ids: list[str]) -> np.ndarray:
    mean = training_vectors(cone).mean(axis=0)
    parts = [wide(ids, []).astype(np.float64), 0.5 * unit(cone(ids, []).astype(np.float64) - mean)]
    return unit(np.concatenate(parts, axis=1))


def test_training_statistics_and_new_texts_use_the_same_centred_targets(workspace: Workspace):
    snapshot = centred_snapshot(workspace)
    rows = np.arange(len(snapshot))
    ids, block = snapshot.take(rows, ["id"])["id"], snapshot.vectors(rows)
    expected = expected_targets(ids)
    np.testing.assert_allclose(snapshot.layout.targets(block), expected, atol=2e-3)
    targets = Targets.of(torch.from_numpy(block), snapshot.layout)
    np.testing.assert_allclose(targets.vectors.numpy(), expected, atol=2e-3)
    np.testing.assert_allclose(targets.gram.numpy(), expected @ expected.T, atol=4e-3)
    np.testing.assert_allclose(targets.to(torch.device("cpu")).vectors, targets.vectors)
    # Of unit norm again: a quarter of the squared weight of the other one, as for a teacher that is not centred.
    np.testing.assert_allclose((targets.vectors[:, DIM:] ** 2).sum(dim=1), 0.2, atol=1e-5)
    one = Targets.of(torch.from_numpy(block), snapshot.layout, ["cone"])
    np.testing.assert_allclose(one.vectors, targets.vectors[:, DIM:] / 0.2**0.5, atol=1e-5)
    stats = {row["teacher"]: row for row in measure_snapshot(snapshot)["stats"] if row["source"] == "*"}
    pairs = (expected @ expected.T)[np.triu_indices(len(expected), 1)]
    assert stats[CONCATENATION]["mean_cosine"] == pytest.approx(pairs.mean(), abs=1e-3)
    assert stats[CONCATENATION]["std_cosine"] == pytest.approx(pairs.std(), abs=1e-3)
    assert {name: row["centred"] for name, row in stats.items()} == {"wide": False, "cone": True, CONCATENATION: True}
    assert stats["cone"]["mean_cosine"] > NARROW  # of the stored vectors, as the teacher gives them


def test_a_centred_teacher_tells_texts_apart(workspace: Workspace):
    snapshot = centred_snapshot(workspace)
    block, layout = torch.from_numpy(snapshot.vectors(np.arange(300))), snapshot.layout
    plain = Layout(layout.teachers, layout.dims, layout.weights)
    spreads = [Spread.of(Targets.of(block, of, ["cone"])).deviation for of in (layout, plain)]
    assert spreads[0] > 2 * spreads[1]


def test_the_centre_is_kept_with_the_snapshot_and_shown(workspace: Workspace, tmp_path: Path):
    snapshot = centred_snapshot(workspace)
    copy = Layout.from_json(json.loads(json.dumps(snapshot.layout.to_json())))
    np.testing.assert_array_equal(copy.mean_of("cone"), snapshot.layout.mean_of("cone"))
    shown = describe(workspace, "tiny")["layout"]
    assert shown["centred"] == (False, True)
    assert shown["mean_cosines"][1] > NARROW > shown["mean_cosines"][0]
    assert list_snapshots(workspace)[0]["teachers"] == f"wide {DIM} x 1, cone {DIM} x 0.5, centred"
    export_snapshot(snapshot, tmp_path / "out", "npy")
    layout = json.loads((tmp_path / "out" / "vectors.json").read_text())["layout"]
    means = [None if mean is None else np.array(mean, np.float32) for mean in layout["means"]]
    blocks = np.split(np.load(tmp_path / "out" / "vectors.npy"), [DIM], axis=1)
    np.testing.assert_allclose(
        concatenate(blocks, layout["weights"], means),
        snapshot.layout.targets(snapshot.vectors(np.arange(len(snapshot)))),
    )


def test_a_snapshot_of_an_earlier_version_has_no_centres():
    old = Layout.from_json({"teachers": ["a", "b"], "dims": [2, 3], "weights": [1.0, 0.5]})
    assert old.mean_of("a") is None
    assert old.describe()["mean_cosines"] == (None, None)


def test_another_setting_of_center_changes_the_snapshot_and_no_vector(workspace: Workspace):
    centred_snapshot(workspace)
    again = centred_snapshot(workspace, "two", centre=None)
    [row] = [
        row for row in compare(open_snapshot(workspace, "tiny@one"), again)["teachers"] if row["verdict"] != "kept"
    ]
    assert (row["teacher"], row["verdict"]) == ("cone", "changed")


@pytest.fixture
def two(raw: dict[str, Any]) -> dict[str, Any]:
    raw["corpus"]["sources"][0]["limit"] = 200
    raw["teachers"] = [
        {"name": name, "kind": "lsa", "dim": dim, "licence": "MIT"} for name, dim in (("a", 8), ("b", 4))
    ]
    return raw


def test_scores_of_the_concatenation_use_the_centre_of_the_corpus(
    two: dict[str, Any], tmp_path: Path, workspace: Workspace, log: Any
):
    two["teachers"][1]["center"] = True
    graph, runner = Graph(parse_recipe(two, tmp_path / "tiny.yaml")), Runner(workspace, log)
    for step in upstream(graph.concatenation):
        runner.make(step)
    snapshot = runner.read(graph.concatenation)
    assert graph.concatenation in graph.scores["concatenation"].dependencies
    manifest = runner.find(graph.concatenation).manifest
    assert manifest.metrics["centred"] == ["b"]
    parts = [TeacherEmbedder(runner.read(graph.teachers[name]), Compute()) for name in "ab"]
    embedder = ConcatenationEmbedder(parts, snapshot.layout)
    rows = np.arange(20)
    texts = snapshot.take(rows, ["text"])["text"]
    request = EncodeRequest(mteb.get_task("STSBenchmark").metadata, None)
    found = np.concatenate([part.vectors.embed(texts, "document", Compute()) for part in parts], axis=1)
    np.testing.assert_allclose(embedder.embed(texts, request), snapshot.layout.targets(found))
    assert not np.allclose(embedder.embed(texts, request)[:, 8:], found[:, 8:] / 2**0.5, atol=1e-2)
    plain = ConcatenationEmbedder(parts, Layout(("a", "b"), (8, 4), (1.0, 1.0)))
    assert plain.identity() != embedder.identity()
    # The old identity, so that scores of concatenations without centres are not computed again.
    assert plain.identity().weights == digest([[part.identity().weights for part in parts], [1.0, 1.0]])
    columns = {column.name: column.centre for column in _materials(workspace, "tiny", snapshot.lineage["key"])[1]}
    np.testing.assert_array_equal(columns["b"].mean_D, snapshot.layout.mean_of("b"))


def test_the_key_changes_no_digest_where_it_is_not_given(two: dict[str, Any], tmp_path: Path):
    given = parse_recipe(two, tmp_path / "tiny.yaml")
    two["teachers"][0]["center"] = "auto"
    assert parse_recipe(two, tmp_path / "tiny.yaml").digest == given.digest
    two["teachers"][0]["center"] = False
    changed = parse_recipe(two, tmp_path / "tiny.yaml")
    assert changed.digest != given.digest
    assert changed.teachers[0].identity_settings() == given.teachers[0].identity_settings()
