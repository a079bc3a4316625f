"""Builds the corpus of a recipe in a process that a test can kill: driver.py RECIPE HOME."""

import logging
import sys
from pathlib import Path

from stella_assets.corpus import cleaned
from stella_assets.corpus.build import corpus_step
from stella_assets.recipe import read_recipe
from stella_assets.step import Workshop, all_steps
from storage.home import Home

if __name__ == "__main__":
    cleaned.SHARD_TEXTS = 10
    workshop = Workshop(Home(Path(sys.argv[2])), logging.getLogger("driver"))
    for step in all_steps(corpus_step(read_recipe(Path(sys.argv[1])))):
        print(step.name, workshop.make(step).digest)
