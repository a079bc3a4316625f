"""Single bits of a finished home are flipped, one at a time: each is found, or changes nothing that a run makes.

python -m tests.faults.flips RECIPE HOME [FLIPS] [SEED]

Each flip is undone, so that every one meets a whole home. Files are drawn kind by kind, e.g. `lancedb/_versions`.
"""

import json
import logging
import random
import re
import sys
from collections import Counter, defaultdict
from pathlib import Path

from stella_assets.core.devices import Compute
from stella_assets.core.errors import StellaError
from stella_assets.core.runner import Runner
from stella_assets.core.services import Services
from stella_assets.lineage.verify import verify_files
from stella_assets.recipe import Graph, Recipe, read_recipe
from stella_assets.storage.database import table_names
from stella_assets.storage.errors import StorageError
from stella_assets.storage.integrity import verify_table
from stella_assets.storage.journal_repair import damaged_journals
from stella_assets.storage.workspace import Workspace

HARMLESS = {
    "locks": "lock files are empty, and counts of rows are compared with the manifest that they were made for",
    "checked": "a shortcut: without it, or where it differs, files are read again",
    "history": "Dagster's record of runs, which decides nothing",
    "schedules": "Dagster's record of schedules, which decides nothing",
    "storage": "what runs printed, for people",
    "logs": "for people",
    ".telemetry": "Dagster's, which sends nothing",
    ".damaged": "what a repair took out of the way; nothing reads it",
    "runs": "figures of the view `runs`, which decide nothing",
    "api_costs": "figures of the view `api_costs`, written again from the journals with the next answer",
    "releases": "the word `seal`: without it the record counts as one of an older version, and it is whole",
    "api/journal.jsonl": "the last line counts as unfinished, and its text is asked for again",
    "statistics.duckdb": "views, written again from the files",
    "statistics.sha256": "views are written again when it differs",
    "shards/seal": "size, time and inode of a shard: when they differ, its bytes are read; its digest is found",
    "lancedb/_transactions": "Lance reads them only to merge commits",
    "lancedb/hint": "Lance's hint at the newest version; it looks further from there",
    "lancedb/_digests": "of a version that nothing reads any more",
    "lancedb/_versions": "of a version that nothing reads any more",
    "lancedb/_notes": "known vectors: their file is written anew when it cannot be read",
    "artefacts/manifest": "white space, or an escape of the same character",
}
"""Why a flip in a file of a kind may change nothing."""


def kind_of(path: Path) -> str:
    """What sort of file it is, by its place in the home."""
    parts = path.parts
    if parts[0] == "lancedb":
        return "lancedb/hint" if parts[-1].endswith("hint.json") else f"lancedb/{parts[2]}"
    if parts[0] == "shards":
        return "shards/seal" if path.suffix == ".json" else f"shards/{parts[1]}"
    if parts[0] == "api":
        return f"api/{'/'.join(part for part in parts[2:-1] if len(part) != DIGITS)}{path.suffix}"
    if parts[0] == "artefacts":
        return "artefacts/manifest" if parts[-1] == "manifest.json" else f"artefacts/{parts[1]}/{parts[-1]}"
    return parts[0]


def state(recipe: Recipe, workspace: Workspace) -> dict[str, str]:
    """What a run would find: the digest of each step, or that it has to be made."""
    compute = Compute(services=Services(workspace, recipe=recipe.name))
    runner, found = Runner(workspace, logging.getLogger("flips"), compute), {}
    for step in Graph(recipe).steps:
        artefact = runner.find(step)
        found[step.name] = artefact.digest if artefact else "made again"
    return found


def verify(workspace: Workspace, table: str) -> list[object]:
    """What `stella verify` finds; of the vector store, in one table."""
    tables = [table] if table in table_names(workspace) else []
    damages = (damage for name in tables for damage in verify_table(workspace, name).damages)
    return [*verify_files(workspace), *damages, *damaged_journals(workspace.api)]


DIGITS = 16
"""Of a fingerprint, which is the name of a folder."""
Outcomes = Counter[tuple[str, str]]


def flip_bits(recipe: Recipe, workspace: Workspace, flips: int, seed: int) -> tuple[Outcomes, list[str]]:
    """Flip bits one at a time.

    Returns:
        How often each kind of file was found by the next run, found by `verify`, or harmless; and what was neither.
    """
    draw, kinds = random.Random(seed), defaultdict(list)
    for path in sorted(path for path in workspace.root.rglob("*") if path.is_file()):
        if path.stat().st_size and not _is_linked(workspace.root, path):
            kinds[kind_of(path.relative_to(workspace.root))].append(path)
    whole, silent = state(recipe, workspace), []
    outcomes: Outcomes = Counter()
    assert set(whole.values()) != {"made again"}, "nothing was made yet"
    for number in range(flips):
        kind = sorted(kinds)[number % len(kinds)]
        path = draw.choice(kinds[kind])
        content = path.read_bytes()
        place = draw.randrange(8 * len(content))
        flipped = bytearray(content)
        flipped[place // 8] ^= 1 << place % 8
        path.write_bytes(flipped)
        relative = path.relative_to(workspace.root)
        table = relative.parts[1].removesuffix(".lance") if relative.parts[0] == "lancedb" else ""
        try:
            now = state(recipe, workspace)
        except (StellaError, StorageError) as refused:
            now = {"refused": str(refused)}
        if now != whole:
            outcomes[kind, "found by the next run"] += 1
        elif verify(workspace, table):
            outcomes[kind, "found by verify"] += 1
        elif kind in HARMLESS:
            outcomes[kind, "harmless"] += 1
        else:
            silent.append(f"{relative}, bit {place}")
        path.write_bytes(content)
    assert state(recipe, workspace) == whole
    return outcomes, silent


def _is_linked(root: Path, path: Path) -> bool:
    return any(each.is_symlink() for each in (path, *path.parents) if each.is_relative_to(root))


def main(recipe: str, home: str, flips: str = "1000", seed: str = "0") -> None:
    """Print how each kind of file fared."""
    outcomes, silent = flip_bits(read_recipe(Path(recipe)), Workspace(Path(home)), int(flips), int(seed))
    kinds = sorted({re.sub(r"[0-9a-f]{16}", "*", kind) for kind, _ in outcomes})
    for kind in kinds:
        print(kind, {outcome: count for (each, outcome), count in sorted(outcomes.items()) if each == kind})
    print(json.dumps({"flips": int(flips), "silent": silent}, indent=1))
    if silent:
        raise SystemExit(1)


if __name__ == "__main__":
    main(*sys.argv[1:])
