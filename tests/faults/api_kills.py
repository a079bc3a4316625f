"""Embedding with a teacher of kind `api` is killed with `kill -9` at random moments, and nothing is paid twice.

python -m tests.faults.api_kills FOLDER [KILLS] [SEED]

A process embeds a corpus from a stand-in that runs in a process of its own. It is killed and started again, and at the
end left alone. Journal and store must then equal those of an undisturbed run, and what the stand-in itself says that it
answered may exceed corpus and canaries only by texts that were in flight at a kill.
"""

import json
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx2
import numpy as np

ITEMS, CONCURRENCY, LATENCY = 16, 4, 0.02
IN_FLIGHT = ITEMS * CONCURRENCY
"""Texts that can be in flight at once."""
EMBED, READY = "--embed", "ready\n"
PER_KILL = 640
"""Texts of the corpus for each kill, so that most kills come before it is embedded."""


@dataclass
class Outcome:
    """What came of it.

    Attributes:
        kills: That came while a process was embedding.
        texts: Of the corpus.
        answered: Texts, as the stand-in itself counted them.
        canaries: Fixed texts among those, as far as they were kept.
        kept: Texts of the corpus in the journal; each once, if this is the number of texts.
        lost: Texts that were answered and not kept.
        in_flight_at_most: Texts that could be in flight at all kills together.
        faults: What is not as in the undisturbed run.
    """

    kills: int
    texts: int
    answered: int
    canaries: int
    kept: int
    lost: int
    in_flight_at_most: int
    faults: list[str]


@contextmanager
def stand_in() -> Iterator[str]:
    """A stand-in in a process of its own; gives its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "tests.api_server", "--port", str(port), "--latency", str(LATENCY)]
    # Of a client that was killed it prints a traceback each time.
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    try:
        while True:
            try:
                counts(address)
                break
            except httpx2.ConnectError:
                assert process.poll() is None, "the stand-in did not start"
                time.sleep(0.05)
        yield address
    finally:
        process.terminate()
        process.wait()


def counts(address: str) -> dict[str, int]:
    """What the stand-in says that it did."""
    return dict(httpx2.get(f"{address}/counts").json())


class Home:
    """A workspace with a corpus, and the teacher that embeds it.

    Args:
        root: Folder of both.
        address: Of the stand-in.
        texts: Of the corpus, where it is not there yet.
    """

    def __init__(self, root: Path, address: str, texts: int = 0) -> None:
        from stella_assets.corpus.read import CorpusTexts
        from stella_assets.storage.workspace import Workspace
        from stella_assets.teachers.kinds.api import ApiTeacher
        from tests.teachers.api.conftest import SmallCorpus, compute_in, settings

        self.root, self.address, self.workspace = root, address, Workspace(root / "home")
        if not (folder := root / "corpus").exists():
            SmallCorpus(folder, [f"text number {number} of the corpus" for number in range(texts)])
        self.corpus = CorpusTexts(folder)
        limits = {"items": ITEMS, "concurrency": CONCURRENCY}
        self.teacher = ApiTeacher.model_validate(settings(address, limits=limits, unit_rows=1024))
        self.compute = compute_in(self.workspace)

    def vectors(self) -> Any:
        from tests.teachers.api.conftest import opened

        return opened(self.teacher, self.root, self.workspace, self.compute)

    def start(self) -> subprocess.Popen[str]:
        """Embed in a process of its own; it is returned when it has imported the libraries and begins.

        Not forked: a process that has used Lance leaves locks to its children that nobody opens.
        """
        command = [sys.executable, "-m", "tests.faults.api_kills", EMBED, str(self.root), self.address]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdout.readline() == READY, process.communicate()[1]
        return process

    def embed(self) -> None:
        """Embed in this process."""
        from tests.teachers.api.conftest import LOG

        vectors = self.vectors()
        print(READY, end="", flush=True)
        vectors.fill(self.corpus, self.compute, LOG)

    def journal(self, part: str = "journal") -> tuple[int, dict[bytes, bytes], list[str]]:
        """Rows of the journals, vectors by key, and damages."""
        from stella_assets.storage.journal import SUFFIX, Journal
        from tests.teachers.api.conftest import DIM

        rows, found, damages = 0, {}, []
        for folder in sorted({path.parent for path in (self.workspace.api).rglob(f"{part}/**/*{SUFFIX}")}):
            journal = Journal(folder, DIM)
            damages += journal.verify()
            for record in journal.records():
                keys, vectors = record.keys(), record.vectors(np.arange(record.rows))
                rows += record.rows
                found |= {keys[at : at + 1].tobytes(): vectors[at].tobytes() for at in range(record.rows)}
        return rows, found, damages

    def digest(self) -> str:
        return str(self.vectors().digest(self.corpus)[0])


def finish(process: subprocess.Popen[str]) -> str:
    """Wait for a process; empty if it succeeded, else what it printed."""
    _, errors = process.communicate()
    return "" if process.returncode == 0 else f"exit code {process.returncode}: {errors[-2000:]}"


def attack(root: Path, kills: int, seed: int = 0) -> Outcome:
    """Kill a process that embeds a number of times, and compare what is left with an undisturbed run."""
    from tests.teachers.api.conftest import LOG

    texts, draw, faults = PER_KILL * kills, random.Random(seed), []
    with stand_in() as address:
        calm = Home(root / "calm", address, texts)
        process = calm.start()
        began = time.monotonic()
        if failure := finish(process):
            faults.append(f"the undisturbed run ended with {failure}")
        seconds = time.monotonic() - began
        calm_rows, calm_vectors, _ = calm.journal()
    with stand_in() as address:
        home, done = Home(root / "killed", address, texts), 0
        for _ in range(kills):
            process = home.start()
            # A share of what is left on average, so that most kills come before all is embedded.
            time.sleep(draw.uniform(0, 1.6 * seconds / kills))
            process.kill()
            failure = finish(process)
            done += process.returncode == -signal.SIGKILL
            if failure and process.returncode != -signal.SIGKILL:
                faults.append(f"a run ended before it was killed, with {failure}")
        if failure := finish(home.start()):
            faults.append(f"the last run ended with {failure}")
        time.sleep(2 * LATENCY)
        rows, vectors, damages = home.journal()
        canaries, _, _ = home.journal("canaries")
        answered = counts(address)["texts"]
        lost = answered - rows - canaries
        faults += damages
        if (calm_rows, rows) != (texts, texts):
            faults.append(f"the journals have {calm_rows:,} and {rows:,} rows of {texts:,} texts")
        if vectors != calm_vectors:
            faults.append("the journal is another one than that of the undisturbed run")
        if not faults and home.digest() != calm.digest():
            faults.append("the store is another one than that of the undisturbed run")
        if not 0 <= lost <= done * IN_FLIGHT:
            faults.append(f"{lost:,} texts were answered and not kept")
        home.vectors().fill(home.corpus, home.compute, LOG)
        if counts(address)["texts"] != answered:
            faults.append("a complete run was answered again")
    return Outcome(done, texts, answered, canaries, rows, lost, done * IN_FLIGHT, faults)


def main() -> None:
    if sys.argv[1] == EMBED:
        root, address = sys.argv[2:]
        Home(Path(root), address).embed()
        return
    root, kills, seed = Path(sys.argv[1]), *(int(word) for word in [*sys.argv[2:], 30, 0][:2])
    outcome = attack(root, kills, seed)
    print(json.dumps(asdict(outcome), indent=1))
    sys.exit(bool(outcome.faults))


if __name__ == "__main__":
    main()
