"""Engines: where units of work are computed. A unit goes to a worker, what it wrote comes back, one committer commits.

One file per kind; a file in this folder registers itself. `local` computes in this process, `processes` in one process
per device.
"""

from stella_assets.core.engine.base import ENGINES, Engine, Worker
from stella_assets.core.engine.local import LocalEngine
from stella_assets.core.engine.processes import ProcessesEngine
from stella_assets.core.registry import import_kinds

import_kinds(__name__, __path__)

__all__ = ["ENGINES", "Engine", "LocalEngine", "ProcessesEngine", "Worker"]
