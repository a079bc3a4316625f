"""Builds the corpus of a recipe in a process that may kill itself: driver.py RECIPE WORKSPACE [KILL_AT].

KILL_AT counts the renames that make something a part of the workspace; the process is killed just before that one.
"""

import logging
import sys
from pathlib import Path

import yaml

from stella_assets.core.runner import Runner
from stella_assets.corpus import source_reader
from stella_assets.storage.workspace import Workspace
from tests.corpus.conftest import corpus_steps, settings_of
from tests.kill import kill_before_rename

if __name__ == "__main__":
    source_reader.SHARD_TEXTS = 10
    if len(sys.argv) > 3:
        kill_before_rename(int(sys.argv[3]))
    recipe = Path(sys.argv[1])
    corpus = settings_of(yaml.safe_load(recipe.read_text(encoding="utf-8"))["corpus"], recipe.parent)
    runner = Runner(Workspace(Path(sys.argv[2])), logging.getLogger("driver"))
    for step in corpus_steps(corpus):
        print(step.name, runner.make(step).digest)
