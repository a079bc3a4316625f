"""Embedding with a teacher of kind `api` is killed with `kill -9` at random moments, and nothing is paid twice.

python -m tests.faults.api_kills FOLDER [KILLS] [SEED]

A process embeds a corpus from a stand-in that runs in a process of its own. It is killed and started again, and at the
end left alone. Journal and store must then equal those of an undisturbed run, and what the stand-in itself says that it
answered may exceed corpus and canaries only by texts that were in flight at a kill.
"""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
import traceback
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
    """A workspace with a corpus, and the teacher that embeds it."""

    def __init__(self, root: Path, address: str, texts: int) -> None:
        from stella_assets.storage.workspace import Workspace
        from stella_assets.teachers.kinds.api import ApiTeacher
        from tests.teachers.api.conftest import SmallCorpus, compute_in, settings

        self.root, self.workspace = root, Workspace(root / "home")
        self.corpus = SmallCorpus(root / "corpus", [f"text number {number} of the corpus" for number in range(texts)])
        limits = {"items": ITEMS, "concurrency": CONCURRENCY}
        self.teacher = ApiTeacher.model_validate(settings(address, limits=limits, unit_rows=1024))
        self.compute = compute_in(self.workspace)

    def vectors(self) -> Any:
        from tests.teachers.api.conftest import opened

        return opened(self.teacher, self.root, self.workspace, self.compute)

    def start(self) -> int:
        """Embed in a process of its own, forked from this one, which has imported the libraries."""
        process = os.fork()
        if process:
            return process
        code = 70
        try:
            from tests.teachers.api.conftest import LOG

            self.vectors().fill(self.corpus.texts, self.compute, LOG)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)

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
        return str(self.vectors().digest(self.corpus.texts)[0])


def finish(process: int) -> int:
    """Wait for a process; its exit code."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def attack(root: Path, kills: int, seed: int = 0) -> Outcome:
    """Kill a process that embeds a number of times, and compare what is left with an undisturbed run."""
    from tests.teachers.api.conftest import LOG

    texts, draw, faults = PER_KILL * kills, random.Random(seed), []
    with stand_in() as address:
        calm = Home(root / "calm", address, texts)
        began = time.monotonic()
        if code := finish(calm.start()):
            faults.append(f"the undisturbed run ended with {code}")
        seconds = time.monotonic() - began
        calm_rows, calm_vectors, _ = calm.journal()
    with stand_in() as address:
        home, done = Home(root / "killed", address, texts), 0
        for _ in range(kills):
            process = home.start()
            time.sleep(draw.uniform(0, 1.8 * seconds / kills))
            if os.waitpid(process, os.WNOHANG)[0]:
                faults.append("a process had embedded all before it could be killed")
                break
            os.kill(process, signal.SIGKILL)
            done += finish(process) == -signal.SIGKILL
        if code := finish(home.start()):
            faults.append(f"the last run ended with {code}")
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
        if home.digest() != calm.digest():
            faults.append("the store is another one than that of the undisturbed run")
        if not 0 <= lost <= done * IN_FLIGHT:
            faults.append(f"{lost:,} texts were answered and not kept")
        home.vectors().fill(home.corpus.texts, home.compute, LOG)
        if counts(address)["texts"] != answered:
            faults.append("a complete run was answered again")
    return Outcome(done, texts, answered, canaries, rows, lost, done * IN_FLIGHT, faults)


def main() -> None:
    root, kills, seed = Path(sys.argv[1]), *(int(word) for word in [*sys.argv[2:], 30, 0][:2])
    outcome = attack(root, kills, seed)
    print(json.dumps(asdict(outcome), indent=1))
    sys.exit(bool(outcome.faults))


if __name__ == "__main__":
    main()
