"""Builds the corpus of a recipe in a process that may kill itself: driver.py RECIPE HOME [KILL_AT].

KILL_AT counts the renames that make something a part of the workspace; the process is gone just before that one.
"""

import logging
import os
import signal
import sys
from pathlib import Path

from storage.workspace import Workspace

from stella_assets.core.step import Runner, all_steps
from stella_assets.corpus import cleaned
from stella_assets.corpus.build import corpus_step
from stella_assets.recipe import read_recipe


def kill_at(number: int) -> None:
    renames = iter(range(1, number))

    def hook(event: str, _arguments: tuple[object, ...]) -> None:
        if event == "os.rename" and next(renames, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


if __name__ == "__main__":
    cleaned.SHARD_TEXTS = 10
    if len(sys.argv) > 3:
        kill_at(int(sys.argv[3]))
    runner = Runner(Workspace(Path(sys.argv[2])), logging.getLogger("driver"))
    for step in all_steps(corpus_step(read_recipe(Path(sys.argv[1])))):
        print(step.name, runner.make(step).digest)
