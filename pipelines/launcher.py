"""Processes of their own for stages, e.g. one per GPU."""

from __future__ import annotations

import shlex
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

import dagster as dg

from stella_assets.core.step import Launch


class Launcher(dg.ConfigurableResource):
    """Starts processes of their own for stages, as children of the run, through Dagster Pipes.

    Attributes:
        command: What to start them with, e.g. `accelerate launch --num_processes 2`, or `python`; empty to train in the
            process of the run.
    """

    command: str = ""

    def within(self, context: dg.AssetExecutionContext) -> Launch | None:
        """How a step of this run launches processes; None where it works in its own.

        Args:
            context: Of the step; its events receive what the processes report.
        """
        words = shlex.split(self.command)
        if not words:
            return None
        # The program of this environment, also where its `bin` folder is not on PATH.
        program = Path(sys.executable).with_name(words[0])
        start = [str(program) if program.is_file() else words[0], *words[1:]]

        def launch(arguments: Sequence[str]) -> None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", dg.PreviewWarning)  # of Dagster's own use of its pipes
                dg.PipesSubprocessClient().run(command=[*start, *arguments], context=context)

        return launch
