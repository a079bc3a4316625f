"""A machine with nothing but Python: an environment with the installed wheel, and folders that programs write into."""

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# A user's texts: columns of other names, one row that a rule drops, and enough sentences for held-out tasks.
ROW = "{number},{shop},The {thing} of order {number} came {how} {number} days ago. We ask for {wish} by {day}.\n"
DROPPED = "Too short."
THINGS = ("parcel", "lamp", "chair", "invoice", "battery", "jacket", "manual", "printer", "bicycle", "receipt", "sofa")
WISHES = (
    "a refund",
    "a new cable",
    "a call",
    "another colour",
    "an answer in writing",
    "a discount",
    "the certificate",
)
TINY = {
    "stages: robust": "stages: [{method: closed_form, train_layers: 0, full_head: {cosine: 1}}]",
    "keep_layers: [0, 2, 4]": "keep_layers: [0]",
    "matryoshka_dims: [128, 64]": "matryoshka_dims: [128, 64]\n  matryoshka_heads: prefix",
    "gate: {max_base_regression: 15}": "gate: {max_base_regression: null, max_task_regression: null}",
}
"""Changes of the recipe that `stella init` writes: one layer and one pass, for a run of a minute."""


def csv_of(rows: int) -> str:
    lines = []
    for number in range(rows):
        thing, wish = THINGS[number * 7 % len(THINGS)], WISHES[number * 5 % len(WISHES)]
        words = {"shop": ("north", "south")[number % 2], "how": ("late", "damaged", "twice")[number % 3]}
        lines.append(ROW.format(number=number, thing=thing, wish=wish, day=f"{1 + number % 28} June", **words))
    return "id,shop,body\n" + "".join(lines) + f"{rows},north,{DROPPED}\n"


@dataclass(frozen=True)
class Machine:
    """Where a newcomer works.

    Attributes:
        root: Has `home/`, `tmp/`, `venv/` and `work/`.
    """

    root: Path

    @property
    def work(self) -> Path:
        return self.root / "work"

    def run(self, command: str | Sequence[str], folder: Path) -> subprocess.CompletedProcess[str]:
        """A line of the shell, in a folder, with nothing of this process' environment but the processor's settings."""
        kept = {key: os.environ[key] for key in ("LANG", "OPENBLAS_CORETYPE", "OMP_NUM_THREADS") if key in os.environ}
        env = kept | {
            "PATH": f"{self.root / 'venv' / 'bin'}:/usr/bin:/bin",
            "HOME": str(self.root / "home"),
            "TMPDIR": str(self.root / "tmp"),
        }
        words = {"shell": True} if isinstance(command, str) else {}
        return subprocess.run(
            command, cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=900, **words
        )

    def files(self) -> set[str]:
        """Everything below the root, but the code that Python compiles for itself."""
        paths = {path.relative_to(self.root).as_posix() for path in self.root.rglob("*")}
        return {path for path in paths if "__pycache__" not in path}


@pytest.fixture(scope="session")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    """A new environment with the wheel of this checkout. Its dependencies are those of the tests' environment."""
    root = tmp_path_factory.mktemp("machine")
    for name in ("home", "tmp", "work"):
        (root / name).mkdir()
    uv = [sys.executable, "-m", "uv"]
    subprocess.run([*uv, "build", "--quiet", "--wheel", "--out-dir", str(root / "dist"), str(ROOT)], check=True)
    shutil.rmtree(ROOT / "build", ignore_errors=True)
    subprocess.run([*uv, "venv", "--quiet", "--python", sys.executable, str(root / "venv")], check=True)
    (wheel,) = (root / "dist").glob("*.whl")
    python = str(root / "venv" / "bin" / "python")
    subprocess.run([*uv, "pip", "install", "--quiet", "--no-deps", "--python", python, str(wheel)], check=True)
    (packages,) = (root / "venv" / "lib").glob("*/site-packages")
    # Files in a folder that a `.pth` names are found, but its own `.pth` files, e.g. of this checkout, are not read.
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return Machine(root)


@dataclass(frozen=True)
class Distilled:
    """What a newcomer has after the first run.

    Attributes:
        machine: Where.
        before: What was there before.
    """

    machine: Machine
    before: set[str]

    @property
    def project(self) -> Path:
        return self.machine.work / "shop"

    @property
    def recipe(self) -> Path:
        return self.project / "recipes" / "shop.yaml"

    def ask(self, command: str) -> str:
        """What a command that succeeds prints."""
        done = self.machine.run(command, self.project)
        assert done.returncode == 0, f"{command}: {done.stdout[-1000:]} {done.stderr[-3000:]}"
        return done.stdout


@pytest.fixture(scope="session")
def distilled(machine: Machine) -> Distilled:
    """A project for own texts in a column of another name, and its first model. Tests of a session share it."""
    (machine.work / "tickets.csv").write_text(csv_of(240))
    found = Distilled(machine, machine.files())
    begun = machine.run("stella init shop --texts tickets.csv --column body", machine.work)
    assert begun.returncode == 0, begun.stderr
    text = found.recipe.read_text()
    for default, tiny in TINY.items():
        assert default in text
        text = text.replace(default, tiny)
    found.recipe.write_text(text)
    done = machine.run("stella run shop", found.project / "recipes")
    assert done.returncode == 0, done.stderr[-3000:]
    return found
