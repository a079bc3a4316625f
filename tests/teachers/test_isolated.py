"""Teachers in an environment of their own: the vectors, units and errors of any other teacher, and no secrets.

The environment of these tests has the libraries of this one, borrowed by a path file, so that nothing is downloaded.
`test_old_libraries.py` has a real one of older libraries.
"""

import ast
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from safetensors.numpy import load_file, save_file

from stella_assets.core.devices import Compute
from stella_assets.core.engine import ProcessesEngine
from stella_assets.core.environments import EnvironmentConfig, Environments
from stella_assets.core.environments.sandbox import can_close_network
from stella_assets.core.errors import UserError
from stella_assets.core.models import code_digest
from stella_assets.storage.workspace import Workspace
from stella_assets.teachers import encoder_process
from stella_assets.teachers.encoder_process import EncoderError, EncoderProcess
from stella_assets.teachers.examination import KnownVectorsError
from stella_assets.teachers.isolated import IsolatedModel
from stella_assets.teachers.kinds import SentenceTransformersTeacher
from stella_assets.teachers.kinds.base import prompt_role
from stella_assets.teachers.teacher_vectors import Reference, TeacherVectors, fingerprints
from tests.models import build
from tests.models.hub import write_commit
from tests.snapshots import Corpus
from tests.teachers.test_teachers import PACKAGED, TEXTS
from tests.wheels import make_wheel, use_index

LONG = "Open a network connection to a host. " * 30
LIBRARY = f"sentence-transformers=={version('sentence-transformers')}"
# Some kernels of older BLAS libraries are wrong on some processors; the machine's own variables avoid them.
SHARED = tuple((name, os.environ[name]) for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE") if name in os.environ)


@pytest.fixture(scope="module")
def compute(tmp_path_factory: pytest.TempPathFactory) -> Compute:
    return Compute("cpu", 1, environments=Environments(Workspace(tmp_path_factory.mktemp("home")), True, SHARED))


@pytest.fixture(scope="module")
def borrowed(tmp_path_factory: pytest.TempPathFactory) -> EnvironmentConfig:
    """An environment that has this one's libraries."""
    wheels = tmp_path_factory.mktemp("wheels")
    place = Path(np.__file__).parents[1]
    name, _, number = LIBRARY.partition("==")
    line = make_wheel(wheels, name, number, {"borrowed.pth": f"{place}\n"})
    with pytest.MonkeyPatch.context() as monkeypatch:
        use_index(wheels, monkeypatch)
        yield EnvironmentConfig(requirements=(line,))


def minilm(environment: EnvironmentConfig | None, **settings: Any) -> SentenceTransformersTeacher:
    known = {"name": "minilm", "kind": "sentence_transformers", "model": PACKAGED, "licence": "Apache-2.0"}
    return SentenceTransformersTeacher.model_validate(
        {"max_length": 32, "dtype": "float32", "environment": environment, **known, **settings}
    )


@pytest.fixture(scope="module")
def isolated(borrowed: EnvironmentConfig, compute: Compute) -> IsolatedModel:
    model = minilm(borrowed, prompts={"query": "find: "}).open(Path(), compute)
    assert isinstance(model, IsolatedModel)
    return model


@pytest.fixture
def process(isolated: IsolatedModel) -> EncoderProcess:
    return isolated._encoder


def test_a_teacher_gives_the_same_vectors_with_and_without_an_environment(isolated: IsolatedModel, compute: Compute):
    here = minilm(None, prompts={"query": "find: "}).open(Path(), compute)
    texts = [*TEXTS, LONG, "", "x"]
    for role in ("document", "query", prompt_role("passage: ")):
        vectors = isolated.encode(texts, role)
        assert vectors.dtype == np.float32
        np.testing.assert_allclose(vectors, here.encode(texts, role), atol=1e-5)
    assert (isolated.dim, isolated.parameters()) == (here.dim, here.parameters())
    assert isolated.embedding == here.embedding
    assert isolated.encode([], "document").shape == (0, 384)


def test_the_fingerprint_has_the_versions_of_the_environment(isolated: IsolatedModel, compute: Compute):
    here = minilm(None, prompts={"query": "find: "})
    described, expected = isolated.describe("query"), here.open(Path(), compute).describe("query")
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert described == {**expected, "environment": {"python": python, "packages": [LIBRARY]}}
    assert isolated.fingerprint("query") != here.open(Path(), compute).fingerprint("query")
    versions = isolated.config.external_versions(compute)
    assert set(versions) == {"model", "dtype", "environment"}
    assert "environment" not in here.external_versions(compute)
    # The same teacher without an environment keeps the identity that it had before there were any.
    assert isolated.config.identity_settings() == here.identity_settings()


@pytest.mark.slow
def test_dense_layers_lengths_and_formats_are_those_of_the_recipe(
    borrowed: EnvironmentConfig, compute: Compute, tmp_path: Path
):
    import torch
    from sentence_transformers.sentence_transformer.modules import Dense

    model = minilm(None).open(Path(), compute).model
    torch.manual_seed(0)
    model.append(Dense(384, 48))
    model.prompts, model.default_prompt_name = {"search": "search: "}, "search"
    model.save_pretrained(str(tmp_path))
    (tmp_path / "2_Dense_16").mkdir()
    Dense(384, 16).save(str(tmp_path / "2_Dense_16"))
    settings: dict[str, Any] = {"model": str(tmp_path), "max_length": 8, "dense_folder": "2_Dense_16"}
    for dtype, tolerance in (("float32", 1e-5), ("bfloat16", 2e-2)):
        there, here = (minilm(own, dtype=dtype, **settings).open(Path(), compute) for own in (borrowed, None))
        assert there.dim == here.dim == 16
        assert there.describe("document")["prompt"] == "search: "
        for role in ("document", prompt_role("")):
            np.testing.assert_allclose(there.encode(TEXTS, role), here.encode(TEXTS, role), atol=tolerance)


@pytest.mark.slow
def test_the_store_gets_the_same_units_from_every_engine(borrowed: EnvironmentConfig, compute: Compute, tmp_path: Path):
    teacher, corpus, made = minilm(borrowed, unit_rows=16), Corpus(range(40)), []
    engine = ProcessesEngine(devices=("cpu",))
    several = Compute("cpu", 1, engine, compute.environments)
    for name, own in (("one", compute), ("several", several)):
        model = teacher.open(Path(), own)
        reference = Reference(model.dim, 0, fingerprints(model), "")
        vectors = TeacherVectors(teacher, Path(), reference, Workspace(tmp_path / name))
        assert vectors.fill(corpus, own, logging.getLogger("test")) == 40
        made.append(vectors.digest(corpus))
    engine.close()
    assert made[0] == made[1]


SPY = """
import json, os, socket, sys
from pathlib import Path
from sentence_transformers.base.modules import Module

class Spy(Module):
    def forward(self, features, **kwargs):
        return features

    def save(self, output_path, **kwargs):
        pass

    @classmethod
    def load(cls, name, **kwargs):
        found = {"variables": dict(os.environ), "home": os.path.expanduser("~"), "network": False, "others": []}
        try:
            socket.create_connection(("127.0.0.1", PORT), timeout=5).close()
            found["network"] = True
        except OSError:
            pass
        for place in Path("/proc").glob("[0-9]*/environ"):
            try:
                if b"SECRET=" in place.read_bytes():
                    found["others"].append(str(place))
            except OSError:
                pass
        Path(name, "found.json").write_text(json.dumps(found))
        return cls()
"""


def spying_model(folder: Path, compute: Compute, port: int) -> None:
    """A model whose own code looks for secrets and a network while it is loaded."""
    add_module(folder, compute, "spy.Spy", SPY.replace("PORT", str(port)))


def add_module(folder: Path, compute: Compute, name: str, code: str) -> None:
    minilm(None).open(Path(), compute).model.save_pretrained(str(folder))
    modules = json.loads((folder / "modules.json").read_text())
    modules.append({"idx": len(modules), "name": "own", "path": "", "type": name})
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / f"{name.split('.', maxsplit=1)[0]}.py").write_text(code)


def test_custom_code_gets_no_secret_and_no_network(
    isolated: IsolatedModel, compute: Compute, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    # Secrets of this process; a child cannot see what is set by `setenv` later in /proc, so another process has one.
    for name in ("SECRET", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "secret")
    holder = subprocess.Popen(["sleep", "120"])
    with socket.create_server(("127.0.0.1", 0)) as server:
        spying_model(tmp_path, compute, server.getsockname()[1])
        settings = {**isolated.settings(), "model": str(tmp_path), "trust_remote_code": True}
        environment = compute.environments.require(isolated.config.environment, "teacher 'spy'")
        spy = EncoderProcess(environment, settings, dict(SHARED), "teacher 'spy'")
        assert spy.encode(TEXTS, "").shape == (len(TEXTS), 384)
        home = Path(spy.home)
        spy.close()
    holder.kill()
    holder.wait()
    found = json.loads((tmp_path / "found.json").read_text())
    assert "secret" not in found["variables"].values()
    assert not {"SECRET", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "PYTHONPATH"} & set(found["variables"])
    assert found["variables"]["HF_HUB_OFFLINE"] == "1"
    assert found["home"] == str(home)
    assert not home.exists()
    # Where the system cannot close the network, the test says so: then the model's code does reach the server.
    assert found["network"] is not can_close_network()
    # A user namespace also hides the variables of this user's other processes.
    assert bool(found["others"]) is not can_close_network()


BROKEN = {
    "import gone_package": "gone_package",
    "import os; os.write(2, b'out of memory\\n'); os.kill(os.getpid(), 9)": "ended with code -9\nout of memory",
}


@pytest.mark.parametrize("code", BROKEN)
def test_a_model_that_does_not_load_is_named_with_its_own_error(
    code: str, isolated: IsolatedModel, compute: Compute, tmp_path: Path
):
    spying_model(tmp_path, compute, 1)
    (tmp_path / "spy.py").write_text(code)
    settings = {**isolated.settings(), "model": str(tmp_path), "trust_remote_code": True}
    environment = compute.environments.require(isolated.config.environment, "teacher 'spy'")
    with pytest.raises(EncoderError, match="teacher 'spy': its model failed in its environment") as failed:
        EncoderProcess(environment, settings, dict(SHARED), "teacher 'spy'")
    assert BROKEN[code] in failed.value.message


@pytest.mark.slow
def test_an_encoder_that_is_killed_is_reported_and_started_again(borrowed: EnvironmentConfig, compute: Compute):
    model = minilm(borrowed).open(Path(), compute)
    vectors = model.encode(TEXTS, "document")
    os.kill(model._encoder.pid, signal.SIGKILL)
    with pytest.raises(EncoderError, match="its process ended with code -9"):
        model.encode(TEXTS, "document")
    np.testing.assert_array_equal(model.encode(TEXTS, "document"), vectors)


STARTER = """
import sys, time
from pathlib import Path
from stella_assets.core.devices import Compute
from stella_assets.core.environments import EnvironmentConfig, Environments
from stella_assets.teachers.kinds import SentenceTransformersTeacher
from stella_assets.storage.workspace import Workspace
root, line, model = sys.argv[1:]
teacher = SentenceTransformersTeacher(name="one", kind="sentence_transformers", licence="MIT", model=model,
                                      environment=EnvironmentConfig(requirements=(line,)))
opened = teacher.open(Path(), Compute("cpu", 1, environments=Environments(Workspace(Path(root)))))
print(opened._encoder.pid, opened._encoder.home, opened.dim, flush=True)
time.sleep(600)
"""


@pytest.mark.slow
def test_an_encoder_ends_with_the_process_that_started_it_also_after_a_kill(
    isolated: IsolatedModel, borrowed: EnvironmentConfig, compute: Compute
):
    assert isolated.dim == 384  # the environment exists
    root = str(compute.environments.workspace.root)
    command = [sys.executable, "-c", STARTER, root, borrowed.requirements[0], PACKAGED]
    starter = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    pid, home, _ = starter.stdout.readline().split()
    encoder = psutil.Process(int(pid))
    assert Path(home).is_dir()
    starter.kill()
    starter.wait()
    deadline = time.monotonic() + 30
    while encoder.is_running() and encoder.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert not Path(home).exists()


def change_weights(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors")


def lose_a_tensor(folder: Path) -> None:
    change_weights(folder, lambda weights: weights.pop("encoder.layer.1.output.dense.weight"))


def spoil_a_tensor(folder: Path) -> None:
    change_weights(folder, lambda weights: weights["encoder.layer.1.output.dense.weight"].fill(np.nan))


def lose_the_tokenizer(folder: Path) -> None:
    for path in (*folder.glob("*token*"), *folder.glob("vocab*")):
        path.unlink()


def cut_off(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lose_a_tensor, "lacks 1 weights (encoder.layer.1.output.dense.weight)"),
        pytest.param(spoil_a_tensor, "has NaN or infinity", marks=pytest.mark.slow),
        pytest.param(lose_the_tokenizer, "tokenizer", marks=pytest.mark.slow),
        (cut_off, "is damaged or cut off"),
    ],
)
def test_a_model_that_is_not_the_published_one_is_refused_there_too(
    harm: Callable[[Path], None], said: str, borrowed: EnvironmentConfig, compute: Compute, tmp_path: Path
):
    folder = build("bert", tmp_path)
    harm(folder)
    with pytest.raises(UserError) as refused:
        minilm(borrowed, model=str(folder)).open(Path(), compute).encode(TEXTS, "document")
    assert said in refused.value.message


def test_code_that_is_not_the_pinned_code_is_not_run(borrowed: EnvironmentConfig, compute: Compute, tmp_path: Path):
    folder = build("custom_code", tmp_path)
    pinned = {"model": str(folder), "trust_remote_code": True, "code_digest": code_digest(folder)}
    teacher = minilm(borrowed, **pinned)
    with pytest.raises(UserError, match=r"transformers .* does not run a model's own code.*below 5"):
        minilm(with_transformers(borrowed, tmp_path), **pinned).check()
    with pytest.raises(UserError, match="does not trust code"):
        minilm(borrowed, model=str(folder)).open(Path(), compute).encode(TEXTS, "document")
    (folder / "modeling_new.py").write_text("raise SystemExit('it ran')")
    with pytest.raises(UserError, match="the code in this folder has the digest"):
        teacher.open(Path(), compute).encode(TEXTS, "document")


SCALED = """
from transformers import BertModel
from .turned import turn

class ScaledModel(BertModel):
    def forward(self, *args, **kwargs):
        output = super().forward(*args, **kwargs)
        output.last_hidden_state = turn(output.last_hidden_state)
        return output
"""


@pytest.mark.slow
@pytest.mark.parametrize("place", ["folder", pytest.param("hub", marks=pytest.mark.slow)])
def test_the_code_of_a_second_repository_is_given_to_the_process_at_its_pinned_commit(
    place: str, isolated: IsolatedModel, compute: Compute, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    folder, environment = build("bert", tmp_path), isolated.config.environment
    plain = minilm(None, model=str(folder)).open(Path(), compute).encode(TEXTS, "document")
    config = json.loads((folder / "config.json").read_text())
    auto_map = {"AutoModel": "org/new.impl--modeling_scaled.ScaledModel"}
    (folder / "config.json").write_text(json.dumps({**config, "auto_map": auto_map}))
    code = {"modeling_scaled.py": SCALED, "turned.py": "turn = lambda states: states.roll(1, dims=2)\n"}
    write_commit(tmp_path / "cache", "org/new.impl", "a" * 40, code)
    write_commit(tmp_path / "cache", "org/new.impl", "b" * 40, {"modeling_scaled.py": "raise SystemExit('main ran')"})
    named = {"model": str(folder), "trust_remote_code": True, "code_revision": "a" * 40}
    if place == "hub":
        files = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
        write_commit(tmp_path / "cache", "org/model", "c" * 40, files)
        named |= {"model": "org/model", "revision": "c" * 40}
    settings = IsolatedModel(minilm(environment, **named), environment, compute).settings()
    # The process finds nothing in a cache: neither this code, nor that to which `main` moved.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "empty"))
    process = EncoderProcess(compute.environments.require(environment, "it"), settings, dict(SHARED), "it")
    vectors = process.encode(TEXTS, "")
    np.testing.assert_allclose(vectors, np.roll(plain, 1, axis=1), atol=1e-5)
    process.close()


def with_transformers(environment: EnvironmentConfig, folder: Path) -> EnvironmentConfig:
    line = make_wheel(folder, "transformers", version("transformers"))
    return EnvironmentConfig(requirements=(*environment.requirements, line))


UNSTEADY = """
import os, torch
from sentence_transformers.base.modules import Module

class Unsteady(Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(os.getpid())
        self.shift = torch.randn(384)

    def forward(self, features, **kwargs):
        features["sentence_embedding"] = features["sentence_embedding"] + self.shift
        return features

    def save(self, output_path, **kwargs):
        pass

    @classmethod
    def load(cls, name, **kwargs):
        return cls()
"""


@pytest.mark.slow
def test_a_model_that_another_process_loads_otherwise_gets_no_vector_into_the_store(
    borrowed: EnvironmentConfig, compute: Compute, tmp_path: Path
):
    add_module(tmp_path, compute, "unsteady.Unsteady", UNSTEADY)
    pinned = {"trust_remote_code": True, "code_digest": code_digest(tmp_path)}
    teacher = minilm(borrowed, model=str(tmp_path), **pinned)
    model = teacher.open(Path(), compute)
    workspace = Workspace(tmp_path / "home")
    vectors = TeacherVectors(teacher, Path(), Reference(model.dim, 0, fingerprints(model), ""), workspace)
    with pytest.raises(KnownVectorsError, match="this process and a second one loaded it with different vectors"):
        vectors.fill(Corpus(range(40)), compute, logging.getLogger("test"))
    assert vectors.count_missing(Corpus(range(40))) == 40


HASH = f"--hash=sha256:{0:064}"


@pytest.mark.parametrize(
    ("requirement", "python", "said"),
    [
        ("einops==0.8.0", None, r"lack sentence-transformers.*Add sentence-transformers 2\.3"),
        ("sentence-transformers==3.0.1 ; sys_platform == 'elsewhere'", None, "lack sentence-transformers"),
        ("sentence-transformers==2.2.2", None, r"sentence-transformers 2\.2\.2 is too old.*Take 2\.3 or newer"),
        ("sentence-transformers==3.0.1", "3.8", r"Python 3\.8 is too old.*Take 3\.9 or newer"),
    ],
)
def test_an_environment_that_cannot_encode_is_refused_before_a_run(requirement: str, python: str | None, said: str):
    lines = (f"{requirement} {HASH}", f"torch==2.3.1 {HASH}")
    with pytest.raises(UserError, match=said):
        minilm(EnvironmentConfig(requirements=lines, python=python)).check()


def test_the_library_that_is_installed_here_decides_whether_own_code_runs(tmp_path: Path):
    """A list for several platforms may name another version of transformers last."""
    folder = build("custom_code", tmp_path)
    new, old = (
        f"transformers=={version} ; sys_platform {{}} '{sys.platform}' {HASH}" for version in ("5.1.0", "4.42.4")
    )
    pinned = {"model": str(folder), "trust_remote_code": True, "code_digest": code_digest(folder)}
    for lines, refused in (((new.format("=="), old.format("!=")), True), ((old.format("=="), new.format("!=")), False)):
        teacher = minilm(EnvironmentConfig(requirements=(f"sentence-transformers==3.0.1 {HASH}", *lines)), **pinned)
        with pytest.raises(UserError, match=r"5\.1\.0 does not run a model's own code") if refused else nullcontext():
            teacher.check()


def test_the_script_is_written_for_the_oldest_python_that_it_names():
    text = encoder_process.SCRIPT.read_text()
    assert "Python 3.9" in text
    ast.parse(text, feature_version=(3, 9))
    imported = {
        name.split(".")[0]
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names])
    }
    assert imported - set(sys.stdlib_module_names) == {"numpy", "torch", "transformers", "sentence_transformers"}
