"""Commands that write are killed with `kill -9` at random moments, alone and beside a second process.

python -m tests.faults.kills FOLDER [KILLS] [SEED] [whole|short]

One project passes through a story of commands undisturbed, and what it was before each command is kept. Then each
command is killed in a copy of that, at a moment that is uniform over the time that it took, or over the time from its
first build on; half of the time a second process works on the same home. The same command must then succeed without
help, and leave what the undisturbed one left: the same digests, rows and exports, nothing damaged, no temporary file.
"""

import json
import os
import random
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stella_assets.core.leases import LEASE
from stella_assets.storage.artefacts import DRAFT, MANIFEST, SCRATCH
from stella_assets.storage.files import below, file_digest, is_left_over
from tests.faults.home import Command, Project, assets, kill, preload, start, wait

PATIENCE = 300
"""Seconds after which a command counts as stuck, also on a busy machine."""
LONG, SHORT = 30, 0.05
"""Seconds."""
TOLD = "told.json"
CALM = (("status", "kills"), ("plan", "kills"), ("verify",), ("vectors", "list"), ("vectors", "gc"), ("corpus", "gc"))
"""Second processes that succeed at any time and change nothing that the story needs."""
LATER = (("redistil", "gc", "kills"), ("redistil", "log", "kills"), ("report", "kills"), ("release", "list", "kills"))
"""Second processes that need a finished run."""


def story() -> list[Command]:
    """Every command that writes, in an order in which each has something to do."""
    steps = [Command(("run", "kills", "--select", asset)) for asset in assets()]
    return [
        Command(_import(), lambda project: project.write_vectors()),
        *steps,
        Command(("run", "kills")),
        Command(("vectors", "export", "kills", "--to", "out/vectors"), is_done=_exists("out/vectors"), once=True),
        Command(
            ("corpus", "export", "kills", "--to", "out/corpus", "--vectors", "lsa"),
            is_done=_exists("out/corpus"),
            once=True,
        ),
        Command(("reproduce", "kills", "--into", "out/again")),
        Command(("release", "promote", "kills", "--name", "first")),
        Command(("pools", "training=2")),
        Command(("redistil", "run", "kills"), lambda project: project.add_texts(1)),
        Command(("release", "rollback", "kills"), is_done=_is_active("first"), once=True),
        Command(("release", "promote", "kills", "--name", "third")),
        Command(("study", "kills", "--grid", "stages.1.steps=4", "--seeds", "1")),
        Command(("vectors", "verify", "--repair"), lambda project: project.flip("lancedb/teacher_vectors.*/data/*")),
        Command(("verify", "--repair"), lambda project: project.flip("artefacts/tokenised_texts/*/tokens.arrow")),
        Command(("run", "kills")),
        Command(("redistil", "run", "kills")),
        Command(("vectors", "gc", "--superseded")),
        Command(("corpus", "gc")),
        Command(("redistil", "gc", "kills")),
        Command(("sql", "SELECT count(*) FROM artefacts")),
    ]


def short_story() -> list[Command]:
    """Commands that write the store and train nothing."""
    chosen = ("cleaned_texts", "corpus", "teacher_vectors/lsa", "concatenated_vectors")
    return [
        Command(_import(), lambda project: project.write_vectors()),
        *(Command(("run", "kills", "--select", asset)) for asset in chosen),
        Command(("vectors", "export", "kills", "--to", "out/vectors"), is_done=_exists("out/vectors"), once=True),
        Command(("pools", "training=2")),
        Command(("vectors", "verify", "--repair"), lambda project: project.flip("lancedb/teacher_vectors.*/data/*")),
        Command(("verify", "--repair"), lambda project: project.flip("artefacts/corpus/*/corpus.parquet")),
        Command(("run", "kills", "--select", "concatenated_vectors")),
        Command(("vectors", "gc", "--superseded")),
        Command(("corpus", "gc")),
    ]


STORIES = {"whole": story, "short": short_story}


def _import() -> tuple[str, ...]:
    files = ("--vectors", "out/vectors.f32", "--texts", "out/texts.txt", "--dim", "24")
    return ("vectors", "import", "kills", "--teacher", "static", *files)


def _exists(path: str) -> Callable[[Project], bool]:
    return lambda project: (project.root / path).exists()


def _is_active(name: str) -> Callable[[Project], bool]:
    return lambda project: _active(project) == name


def _active(project: Project) -> str:
    link = project.workspace.releases / "kills" / "current"
    return str(link.readlink()) if link.is_symlink() else ""


def contents(project: Project) -> dict[str, Any]:
    """What must be equal: digests by link, releases, verdicts, tables row by row, exported files."""
    from stella_assets.storage.canonical import digest
    from stella_assets.storage.database import open_table, table_names
    from stella_assets.storage.sealed import unseal
    from stella_assets.teachers.tables import VECTORS, teacher_tables
    from stella_assets.teachers.teacher_vectors import REFERENCE

    workspace, found = project.workspace, {}
    for link in sorted(path for path in (workspace.root / "kills").rglob("*") if path.is_symlink()):
        manifest = json.loads((link / MANIFEST).read_text(encoding="utf-8"))
        found[f"link {link.relative_to(workspace.root)}"] = manifest["digest"]
    found["active"] = _active(project)
    if found["active"]:
        record = workspace.releases / "kills" / f"{found['active']}.json"
        # The time, and the seal that covers it, differ from run to run.
        found["record"] = {**unseal(json.loads(record.read_text(encoding="utf-8"))), "promoted_at": ""}
    ledger = workspace.redistillations / "kills.jsonl"
    if ledger.is_file():
        verdicts = [json.loads(line)["verdict"] for line in ledger.read_text(encoding="utf-8").splitlines()]
        found["trained"] = [verdict for verdict in verdicts if verdict in ("promoted", "rejected")]
    # Of teachers that the recipe has now: others may go in a collection. Before the first run, all.
    references = [
        path.read_text(encoding="utf-8") for path in workspace.root.glob(f"kills/teacher_vectors/*/{REFERENCE}")
    ]
    for name in teacher_tables(table_names(workspace)):
        needed = any(name.removeprefix(VECTORS) in each for each in references) or not references
        if needed and (table := open_table(workspace, name)) is not None:
            rows = sorted(map(str, table.to_table().to_pylist()))
            found[f"table {name}"] = [len(rows), digest(rows)]
    for path in sorted(project.root.glob("out/*")):
        if path.name != "again":
            files = [each for each in sorted(path.rglob("*")) if each.is_file()] if path.is_dir() else [path]
            found |= {f"{file.relative_to(project.root)}": file_digest(file) for file in files}
    return found


def left_over(project: Project) -> list[str]:
    """What killed processes left, and the next command should have removed."""
    from stella_assets.storage.database import open_table, table_names

    found = []
    for path in [*project.workspace.root.rglob("*"), *(project.root / "out").rglob("*")]:
        in_trash = path.parent.name == ".trash"
        if path.name.endswith((DRAFT, SCRATCH)) or in_trash or (is_left_over(path) and not path.is_dir()):
            found.append(str(path.relative_to(project.root)))
        if path.is_symlink() and not path.exists():
            found.append(f"{path.relative_to(project.root)} leads nowhere")
    for name in table_names(project.workspace):
        table = open_table(project.workspace, name)
        if table is None or not table.count_rows():
            found.append(f"table {name} is empty")
    return found


@dataclass
class Outcome:
    """How one kill went.

    Attributes:
        command: What was killed.
        second: What ran beside it; empty where it was alone.
        hit: What the command was doing, as far as its leases tell.
        faults: What is not as it should be.
    """

    command: str
    second: str
    hit: str
    faults: list[str]


class Story:
    """The undisturbed project and what it was before each command.

    Args:
        root: Where projects are kept: `states/<number>` before each command, and `live`, where all commands run.
        commands: In the order in which they are run undisturbed.
    """

    def __init__(self, root: Path, commands: list[Command]) -> None:
        self.root, self.live = root, Project(root / "live")
        self.commands = commands
        self.log = root / "log"
        self.seconds: list[float] = []
        self.building: list[float] = []
        self.expected: list[dict[str, Any]] = []

    def tell(self, begin: Callable[[Project], None]) -> None:
        """Run all commands undisturbed."""
        _apart(lambda: begin(self.live))
        for number, command in enumerate(self.commands):
            _apart(lambda each=command: each.prepare(self.live))  # type: ignore[misc]
            shutil.copytree(self.live.root, self.root / "states" / str(number), symlinks=True)
            began = time.monotonic()
            process = start(self.live, command.arguments, self.log)
            code, began_to_build = _wait_for_build(self.live, process), time.monotonic()
            code = wait(process, PATIENCE) if code is None else code
            assert code == 0, f"{command}: {code}, see {self.log}"
            self.seconds.append(time.monotonic() - began)
            self.building.append(time.monotonic() - began_to_build)
            self.expected.append(_apart(lambda: contents(self.live)))
            left = _apart(lambda: left_over(self.live))
            assert not left, f"{command}: {left}"
            print(f"{number:2} {self.seconds[-1]:6.2f} s  {command}", flush=True)
        told = {"seconds": self.seconds, "building": self.building, "expected": self.expected}
        (self.root / TOLD).write_text(json.dumps(told), encoding="utf-8")

    def remember(self) -> None:
        """Take up a story that was told in the same folder, or one that this folder was copied from."""
        told = json.loads((self.root / TOLD).read_text(encoding="utf-8"))
        self.seconds, self.building, self.expected = told["seconds"], told["building"], told["expected"]

    def restore(self, number: int) -> None:
        """Make `live` what it was before a command."""
        shutil.rmtree(self.live.root)
        shutil.copytree(self.root / "states" / str(number), self.live.root, symlinks=True)

    def finished(self) -> int:
        """Number of the first command behind the complete run."""
        complete = (n for n, command in enumerate(self.commands) if command.arguments == ("run", "kills"))
        return next(complete, len(self.commands)) + 1

    def disturb(self, number: int, at: float, second: tuple[str, ...], *, building: bool) -> Outcome:
        """Kill a command after a share of its time, beside a second process, and look at what comes of it.

        Args:
            number: Of the command.
            at: Share of its time, or of the time from its first build on.
            second: What runs beside it; empty for nothing.
            building: Whether the time begins with its first build.
        """
        self.restore(number)
        command, faults = self.commands[number], []
        log = self.root / "last_log"
        log.unlink(missing_ok=True)
        first = start(self.live, command.arguments, log)
        other = start(self.live, second, log) if second else None
        code = _wait_for_build(self.live, first) if building else None
        if code is None:
            code = wait(first, at * (self.building if building else self.seconds)[number])
        if code is None:
            kill(first)
        hit = _hit(self.live) if code is None else "nothing, it had ended"
        if other and (ended := wait(other, PATIENCE)) != 0:
            faults.append(f"the second process ended with {ended}")
            if ended is None:
                kill(other)
        if not command.is_done(self.live):
            again = start(self.live, command.arguments, log)
            if (ended := wait(again, PATIENCE)) != 0:
                faults.append(f"the next command ended with {ended}")
                if ended is None:
                    kill(again)
        faults += _apart(lambda: _differences(self.expected[number], contents(self.live)))
        faults += [f"left over: {each}" for each in _apart(lambda: left_over(self.live))]
        if wait(start(self.live, ("verify",), log), PATIENCE) != 0:
            faults.append("`stella verify` is not clean")
        if "The traceback is in" in log.read_text(encoding="utf-8"):
            faults.append("a bug was logged")
        return Outcome(str(command), " ".join(second), hit, faults)


def _differences(expected: dict[str, Any], found: dict[str, Any]) -> list[str]:
    names = sorted(expected.keys() | found.keys())
    return [f"{n}: {expected.get(n)} became {found.get(n)}" for n in names if expected.get(n) != found.get(n)]


def _wait_for_build(project: Project, process: int) -> int | None:
    """Wait until an artefact is being built, or the process has ended; then give its exit code."""
    while not any(path.name == LEASE for path in below(project.workspace.artefacts)):
        if (code := wait(process, 0.005)) is not None:
            return code
    return None


def _hit(project: Project) -> str:
    files = [path for path in below(project.workspace.artefacts) if path.name == LEASE]
    leases = [json.loads(path.read_text(encoding="utf-8")) for path in files]
    return ", ".join(sorted(lease["asset"] for lease in leases)) or "between steps"


def _apart(work: Callable[[], Any]) -> Any:
    """Do something in a forked process, so that this one starts no threads and opens no table."""
    reader, writer = os.pipe()
    process = os.fork()
    if not process:
        try:
            os.write(writer, json.dumps(work()).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        read = file.read()
    os.waitpid(process, 0)
    return json.loads(read)


def plan(told: Story, kills: int, seed: int) -> Iterator[tuple[int, float, tuple[str, ...], bool]]:
    """Which command is killed when, beside what: every second time beside another one.

    Half of the kills of a command that builds come while it builds. Each command is killed equally often, but those
    that take half a minute half as often.
    """
    draw = random.Random(seed)
    order: list[int] = []
    whole_round = False
    for number in range(kills):
        if not order:
            whole_round, full = not whole_round, draw.sample(range(len(told.commands)), len(told.commands))
            order = [place for place in full if whole_round or told.seconds[place] < LONG]
        place = order.pop()
        same = told.commands[place].arguments
        seconds = [*CALM, *(() if told.commands[place].once else (same,))]
        damaged = any("--repair" in told.commands[each].arguments for each in (place - 1, place))
        if place >= told.finished() and not damaged:
            seconds += LATER
        if "--repair" in same:
            seconds.remove(("verify",))  # it finds the damage that is to be repaired
        building = told.building[place] > SHORT and draw.random() < 0.5
        yield place, draw.random(), draw.choice(seconds) if number % 2 else (), building


def main(folder: str, kills: str = "200", seed: str = "0", which: str = "whole") -> None:
    """Print how each kill went, and a table by command."""
    preload()
    told = Story(Path(folder).absolute(), STORIES[which]())
    if (told.root / TOLD).is_file():
        told.remember()
    else:
        shutil.rmtree(told.root, ignore_errors=True)
        (told.root / "states").mkdir(parents=True)
        told.tell(lambda project: project.begin())
    outcomes = []
    for number, (place, at, second, building) in enumerate(plan(told, int(kills), int(seed)), 1):
        outcome = told.disturb(place, at, second, building=building)
        outcomes.append(outcome)
        print(f"{number} {outcome}", flush=True)
        if outcome.faults:
            kept = told.root / f"fault_{number}"
            shutil.copytree(told.live.root, kept, symlinks=True)
            shutil.copy(told.root / "last_log", kept / "log")
    by_command = Counter((each.command, "beside" if each.second else "alone", bool(each.faults)) for each in outcomes)
    for (command, how, faulty), count in sorted(by_command.items()):
        print(f"{count:4} {how:7} {'FAULTS' if faulty else 'whole':7} {command}")
    if any(each.faults for each in outcomes):
        raise SystemExit(1)


if __name__ == "__main__":
    main(*sys.argv[1:])
