"""User seconds of quick commands, and of a run repeated with nothing changed, on a finished workspace.

    python -m benchmarks.commands [--workspace FOLDER] [--recipe demo]

Each is compared with starting Python and importing the package of the commands, which every command does. User seconds
are those of the process and its children, so that what other programs do hardly counts.
"""

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from benchmarks import write_row

STELLA = str(Path(sys.executable).with_name("stella"))
COMMANDS = ("status", "plan", "report", "run")
PYTHON, PACKAGE = "python", "import stella_assets.pipelines.cli.app"


def user_seconds(command: Sequence[str], environment: Mapping[str, str]) -> float:
    """User seconds of a command that has to succeed, children included."""
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with exit code {process.returncode}.")
    return usage.ru_utime


def require_finished(recipe: str, environment: Mapping[str, str]) -> None:
    """Make sure that the measured run has nothing to make."""
    command = [STELLA, "plan", recipe, "--json"]
    planned = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, env=environment).stdout)
    if any(asset["state"] == "made" for asset in planned):
        raise typer.BadParameter(f"the run of {recipe} is not complete. Run `stella run {recipe}` first.")


def main(
    workspace: Annotated[
        Path | None, typer.Option(help="Where the recipe was run; that of the project when left out.")
    ] = None,
    recipe: Annotated[str, typer.Option(help="Name or path of the recipe.")] = "demo",
    repeats: int = 5,
) -> None:
    """Measure all of them, alternating, and compare medians."""
    environment = {**os.environ, **({"STELLA_HOME": str(workspace.absolute())} if workspace else {})}
    require_finished(recipe, environment)
    measured = {
        PYTHON: [sys.executable, "-c", "pass"],
        PACKAGE: [sys.executable, "-c", PACKAGE],
        **{name: [STELLA, name, recipe] for name in COMMANDS},
    }
    seconds: dict[str, list[float]] = {name: [] for name in measured}
    for command in measured.values():
        user_seconds(command, environment)  # so that files are in the cache and byte code is written
    for _ in range(repeats):
        for name, command in measured.items():
            seconds[name].append(user_seconds(command, environment))
    median = {name: statistics.median(values) for name, values in seconds.items()}
    write_row(
        "commands",
        {
            "recipe": recipe,
            "repeats": repeats,
            "over_importing_the_package": {name: round(median[name] / median[PACKAGE], 2) for name in COMMANDS},
            "user_seconds": {name: round(value, 2) for name, value in median.items()},
        },
    )


if __name__ == "__main__":
    typer.run(main)
