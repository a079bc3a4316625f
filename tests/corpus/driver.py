"""Builds the corpus of a recipe in a process that may kill itself: driver.py RECIPE HOME [KILL_AT].

KILL_AT counts the renames that make something a part of the home; the process is gone just before that one.
"""

import logging
import os
import signal
import sys
from pathlib import Path

from stella_assets.corpus import cleaned
from stella_assets.corpus.build import corpus_step
from stella_assets.recipe import read_recipe
from stella_assets.step import Workshop, all_steps
from storage.home import Home


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
    workshop = Workshop(Home(Path(sys.argv[2])), logging.getLogger("driver"))
    for step in all_steps(corpus_step(read_recipe(Path(sys.argv[1])))):
        print(step.name, workshop.make(step).digest)
