"""Ctrl-C ends a command at once, and says that it can go on."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.conftest import write_recipe

STELLA = str(Path(sys.executable).with_name("stella"))


def test_a_run_that_is_interrupted_says_how_to_go_on(raw: dict[str, Any], tmp_path: Path):
    command = [STELLA, "run", str(write_recipe(tmp_path, raw))]
    environment = {**os.environ, "STELLA_HOME": str(tmp_path / "home")}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        began = any("artefacts are reused" in line for line in iter(process.stderr.readline, ""))
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
    assert began
    assert rest.rstrip().endswith("Stopped. Run the same command again to continue where it stopped.")
    assert "Traceback" not in rest
    assert process.returncode == 130
