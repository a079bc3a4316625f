"""What environment variables decide: threads, engine, folders."""

import os
import subprocess
import sys
import traceback
from pathlib import Path

import pytest
import sqlalchemy as sa

from stella_assets.core.devices import available_threads
from stella_assets.core.engine import LocalEngine, ProcessesEngine
from stella_assets.pipelines import environment
from stella_assets.pipelines.environment import EnvironmentVariableError, compute, prepare_environment

VARIABLES = (
    "STELLA_ALLOW_ENVIRONMENTS",
    "STELLA_THREADS",
    "STELLA_ENGINE",
    "STELLA_PARALLEL",
    *environment.THREAD_VARIABLES,
)


@pytest.fixture(autouse=True)
def _nothing_is_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in VARIABLES:
        monkeypatch.setenv(name, "")  # so that what a test sets is reset afterwards
        monkeypatch.delenv(name)
    monkeypatch.setenv("STELLA_HOME", str(tmp_path / "workspace"))
    monkeypatch.setenv("DAGSTER_HOME", "")


def test_threads_are_those_of_the_machine_unless_a_variable_overrides_them(monkeypatch: pytest.MonkeyPatch):
    assert compute().threads == available_threads()
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert compute().threads == 3
    monkeypatch.setenv("STELLA_THREADS", "5")
    assert compute().threads == 5


def test_libraries_get_the_threads_that_the_user_did_not_set(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("STELLA_THREADS", "7")
    monkeypatch.setenv("POLARS_MAX_THREADS", "2")
    prepare_environment()
    found = {name: os.environ[name] for name in environment.THREAD_VARIABLES}
    assert found == {"OMP_NUM_THREADS": "7", "RAYON_NUM_THREADS": "7", "POLARS_MAX_THREADS": "2"}


def test_threads_are_limited_before_a_library_reads_them():
    code = (
        "import sys\n"
        "import stella_assets.pipelines.environment as e\n"
        "loaded = [name for name in ('numpy', 'torch', 'polars', 'tokenizers') if name in sys.modules]\n"
        "print(loaded)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_engine_is_named_with_its_devices(monkeypatch: pytest.MonkeyPatch):
    assert compute().engine == LocalEngine()
    monkeypatch.setenv("STELLA_ENGINE", "local")
    assert compute().engine == LocalEngine()
    monkeypatch.setenv("STELLA_ENGINE", "processes:cuda:0,cuda:1")
    assert compute().engine == ProcessesEngine(devices=("cuda:0", "cuda:1"))


def test_encoders_in_an_environment_see_only_what_is_listed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_TOKEN", "secret")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    shared = dict(compute().environments.variables)
    assert set(shared) <= set(environment.SHARED_VARIABLES)
    assert shared["CUDA_VISIBLE_DEVICES"] == "1"
    assert [compute(allow).environments.allowed for allow in (False, True)] == [False, True]
    monkeypatch.setenv("STELLA_ALLOW_ENVIRONMENTS", "1")
    assert compute().environments.allowed


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("STELLA_THREADS", "many", "STELLA_THREADS 'many': is not a whole number above 0."),
        ("STELLA_THREADS", "0", "STELLA_THREADS '0': is not a whole number above 0."),
        ("STELLA_ALLOW_ENVIRONMENTS", "yes", "STELLA_ALLOW_ENVIRONMENTS 'yes': is neither 0 nor 1."),
        ("STELLA_ENGINE", "rays", "STELLA_ENGINE 'rays': is not an engine. Name one of local, processes"),
        ("STELLA_ENGINE", "local:2", "the engine 'local' has no settings"),
        ("STELLA_ENGINE", "processes", "STELLA_ENGINE 'processes': Field required"),
    ],
)
def test_a_value_that_cannot_be_used_is_named_with_a_remedy(
    name: str, value: str, said: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv(name, value)
    with pytest.raises(EnvironmentVariableError) as refused:
        compute()
    assert said in str(refused.value)
    assert refused.value.remedy


def test_parallel_steps_are_a_number(monkeypatch: pytest.MonkeyPatch):
    assert environment.parallel_steps() == 1
    monkeypatch.setenv("STELLA_PARALLEL", "four")
    with pytest.raises(EnvironmentVariableError, match=r"STELLA_PARALLEL 'four': .* e.g. 4"):
        environment.parallel_steps()


@pytest.mark.parametrize(
    "name", ["a%41b", "100%", "a?b=c", "a\nb", "a\x1b[31mb", "a\udcffb", "[a]", "{a,b}", "a*", "a\\b"]
)
def test_a_home_whose_name_a_database_would_misread_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("STELLA_HOME", str(tmp_path / name))
    with pytest.raises(EnvironmentVariableError, match="must not be in its path") as refused:
        prepare_environment()
    assert str(refused.value).isascii()
    assert str(refused.value).isprintable()
    assert refused.value.remedy == "Set STELLA_HOME to another folder."
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a b", "a'b\"c", "a#b;c&d|e", "h\u00e9\u65e5", "$HOME ~", "s3:", "-rf", "e\u0301!"])
def test_a_home_may_have_any_other_name(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("STELLA_HOME", str(tmp_path / name))
    workspace = prepare_environment()
    engine = sa.create_engine(f"sqlite:///{workspace.root / 'x.db'}")
    with engine.connect() as connection:
        connection.execute(sa.text("create table t (a int)"))
    assert (tmp_path / name / "x.db").is_file()


@pytest.mark.parametrize(
    "address",
    [
        "postgresql+psycopg2://u:hunter2@127.0.0.1:1/x",
        "postgresql+psycopg2://u@127.0.0.1:1/x?password=hunter2",
        "postgresql+psycopg2://u@127.0.0.1:1/x?p%61ssword=hunt%65r2",
        "postgresql+psycopg2://u@127.0.0.1:1/x?PASSWORD=hunter2",
        "postgresql+psycopg2://u@127.0.0.1:1/x?sslpassword=hunter2&sslmode=hunter2",
        "postgresql+psycopg2://u@127.0.0.1:1/x?dsn=hunter2%20x",
        "postgresql+psycopg2://u@127.0.0.1:1/x?dsn=password%3Dhunter2",
        "postgresql+psycopg2://u@127.0.0.1:1/x?application_name=%00hunter2",
        "postgresql+psycopg2://u@127.0.0.1:1/password=hunter2 dbname=x",
        "postgresql+psycopg2://u@127.0.0.1:hunter2/x",
        "postgresql+psycopg2://u:a@hunter2@127.0.0.1:1/x",
        "postgresql+psycopg2://u:a@hunter2/b@127.0.0.1:1/x",
        "postgresql+psycopg2://u:a/hunter2@127.0.0.1:1/x",
        "postgresql+psycopg2://u:a@b:hunter2@127.0.0.1:1/x",
        "postgresql://u:hunter2@127.0.0.1:1/x",
        "host=127.0.0.1 password=hunter2 dbname=x",
        "hunter2",
    ],
)
def test_no_form_of_an_address_shows_its_password(address: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("STELLA_POSTGRES", address)
    with pytest.raises(EnvironmentVariableError, match=r"^STELLA_POSTGRES: ") as refused:
        environment.check_postgres()
    shown = "".join(traceback.format_exception(refused.value))
    assert "hunter2" not in shown
    assert refused.value.remedy


def test_onnx_runtime_reports_nothing_and_writes_no_identifier_of_the_machine(tmp_path: Path):
    code = (
        "from stella_assets.pipelines.environment import prepare_libraries\n"
        "prepare_libraries()\n"
        "import onnxruntime\n"
        "from onnx import TensorProto, helper\n"
        "values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in 'xy']\n"
        "graph = helper.make_graph([helper.make_node('Relu', ['x'], ['y'])], 'graph', values[:1], values[1:])\n"
        "model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 17)], ir_version=9)\n"
        "onnxruntime.InferenceSession(model.SerializeToString(), providers=['CPUExecutionProvider'])\n"
    )
    env = os.environ | {"HOME": str(tmp_path), "TMPDIR": str(tmp_path)}
    env.pop("ORT_DISABLE_TELEMETRY", None)  # set by another test of this process
    subprocess.run([sys.executable, "-c", code], env=env, check=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["STELLA_HOME", "STELLA_VECTORS"])
def test_a_folder_may_begin_with_the_home_folder_of_a_user_that_there_is(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(name, "~/x")
    found = environment.workspace()
    assert {"STELLA_HOME": str(found.root), "STELLA_VECTORS": found.vectors}[name] == str(Path.home() / "x")
    monkeypatch.setenv(name, "~nosuchuser/x")
    with pytest.raises(EnvironmentVariableError, match=rf"{name} '~nosuchuser/x': this computer has no such user. Wr"):
        environment.workspace()


def test_a_launch_command_that_no_shell_would_read_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("STELLA_LAUNCH", "accelerate launch '--num_processes 2")
    with pytest.raises(EnvironmentVariableError, match=r"STELLA_LAUNCH .*: is not a command, as a shell would read it"):
        environment.launch_command()


@pytest.mark.parametrize(
    "address", ["s3://me:hunter2@bucket/x", "s3://bucket/x?secret=hunter2", "s3://:hunter2@b", "s3://[hunter2/x"]
)
def test_an_address_of_a_store_with_a_password_is_refused_without_it(address: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("STELLA_VECTORS", address)
    with pytest.raises(EnvironmentVariableError, match=r"^STELLA_VECTORS: ") as refused:
        environment.workspace()
    assert "hunter2" not in "".join(traceback.format_exception(refused.value))


@pytest.mark.parametrize("address", ["s3+ddb://bucket/x?ddbTableName=locks", "abfss://container@account.example/x"])
def test_other_parts_of_an_address_of_a_store_stay(address: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("STELLA_VECTORS", address)
    assert environment.workspace().vectors == address
