"""Memory of a teacher behind an API with ten million texts: journal, table and what is known of both.

    python -m benchmarks.api_memory [--texts 10000000] [--dim 1024] [--again]

A simulated client answers at once; everything else is what a run does: ids of the texts, look-ups, a record of the
journal for each request, flushed to the disk, and a unit of the table for each 32,768 texts. The vectors themselves are
40 GB, so the benchmark gives their blocks back to the file system after they were written and flushed (it punches holes
into the files). Keys, digests and sizes stay, and so does all that a process keeps in memory. With `--again` the table
is then removed and filled from the journal; this needs the vectors, so nothing is given back.
"""

import ctypes
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from benchmarks import write_row
from stella_assets.corpus.read import CORPUS_FILE, CorpusTexts
from stella_assets.corpus.tables import TEXTS
from stella_assets.corpus.text import text_id
from stella_assets.storage.workspace import Workspace

ITEMS = 2048
KEEP_SIZE, PUNCH_HOLE = 1, 2
PART = 1_000_000


def text_of(number: int) -> str:
    return f"text number {number} of a large corpus"


def write_corpus(folder: Path, texts: int) -> None:
    """Numbered texts in the form of a corpus artefact, sorted by id."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    ids = b"".join(bytes.fromhex(text_id(text_of(number))) for number in range(texts))
    order = np.argsort(np.frombuffer(ids, dtype="S16"), kind="stable")
    with pq.ParquetWriter(folder / CORPUS_FILE, TEXTS.schema, compression="zstd") as writer:
        for start in range(0, texts, 65_536):
            numbers = order[start : start + 65_536].tolist()
            columns = {
                "id": [ids[16 * number : 16 * number + 16].hex() for number in numbers],
                "text": [text_of(number) for number in numbers],
                "split": ["train"] * len(numbers),
                "source": ["numbers"] * len(numbers),
            }
            filled = {name: columns.get(name, ["document"] * len(numbers)) for name in TEXTS.schema.names}
            writer.write_table(pa.table(filled, schema=TEXTS.schema))


class InstantClient:
    """Answers at once: a few random vectors, one after another."""

    def __init__(self, dim: int) -> None:
        rows = np.random.default_rng(0).standard_normal((ITEMS, dim), dtype=np.float32)
        self.rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)

    def embed(
        self, texts: Sequence[str], _role: str, on_answer: Callable[[Any], None], budget: Any, _items: int | None = None
    ) -> list[Any]:
        from stella_assets.teachers.api.answers import Answer

        for start in range(0, len(texts), ITEMS):
            count = min(ITEMS, len(texts) - start)
            budget.settle(0, 10 * count)
            on_answer(Answer(np.arange(start, start + count), self.rows[:count], 10 * count, f"request {start}"))
        return []


def give_back(file: Path, start: int, size: int) -> None:
    """Free the blocks of a part of a file; its size stays, and it reads as zeros."""
    if size <= 0:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = os.open(file, os.O_RDWR)
    try:
        sizes = (ctypes.c_int64(start), ctypes.c_int64(size))
        if libc.fallocate(descriptor, KEEP_SIZE | PUNCH_HOLE, *sizes):
            raise OSError(ctypes.get_errno(), "this file system has no holes")
    finally:
        os.close(descriptor)


def forget_vectors() -> None:
    """From now on vectors are given back once they are written."""
    from stella_assets.storage import journal
    from stella_assets.storage.unit_writer import UnitWriter

    append, write = journal.Journal.append, UnitWriter.write

    def append_and_forget(self: Any, keys: Any, vectors: Any, about: Any) -> Any:
        kept = append(self, keys, vectors, about)
        size, behind = kept.nbytes, self._file.stat().st_size
        give_back(self._file, behind - size, size)
        return kept

    def write_and_forget(self: Any, keys: Any, values: Any) -> Any:
        written = write(self, keys, values)
        (file,) = written.fragment["files"]
        # The vectors are the last column, and most of the file; ids and the file's own tables stay.
        rows = values.nbytes
        whole = Path(self.uri, "data", file["path"])
        content_start = whole.stat().st_size - rows - len(keys) * 40 - 65_536
        give_back(whole, max(0, content_start) + len(keys) * 40 + 131_072, rows - 2 * len(keys) * 40 - 262_144)
        return written

    journal.Journal.append = append_and_forget  # type: ignore[method-assign]
    UnitWriter.write = write_and_forget  # type: ignore[method-assign]


def inside(root: str, dim: int, forget: bool) -> None:
    """Fill the table, and print the peak of this process's memory."""
    import logging

    import lance  # noqa: F401 (its import is not measured)
    import polars  # noqa: F401

    from stella_assets.core.devices import Compute
    from stella_assets.core.services import Services
    from stella_assets.storage.memory import PeakMemory
    from stella_assets.teachers.kinds.api import ApiTeacher
    from stella_assets.teachers.teacher_vectors import Reference, TeacherVectors, fingerprints
    from stella_assets.teachers.worker import EncodeWorker

    workspace, texts = Workspace(Path(root) / "home"), CorpusTexts(Path(root))
    service = {"dialect": "openai", "model": "simulated", "base_url": "http://127.0.0.1:1", "dimensions": dim}
    terms = {"distribution": "internal", "url": "https://example.com", "read_on": "2026-11-27"}
    teacher = ApiTeacher.model_validate(
        {"kind": "api", "name": "simulated", "licence": "none", "service": service, "key": None, "price": 0.1}
        | {"terms": terms}
    )
    compute = Compute("cpu", threads=1, services=Services(workspace))
    worker = EncodeWorker(teacher, Path(root))
    model = worker.model(compute)
    model.__dict__["_client"] = InstantClient(dim)
    if forget:
        forget_vectors()
    vectors = TeacherVectors(teacher, Path(root), Reference(dim, 0, fingerprints(model), ""), workspace, worker)
    with PeakMemory() as at_rest:
        pass
    with PeakMemory() as memory:
        began = time.perf_counter()
        vectors.forecast(texts, compute)
        encoded = vectors.fill(texts, compute, logging.getLogger("benchmark"))
        seconds = time.perf_counter() - began
    row = {"encoded": encoded, "seconds": round(seconds), "peak_mib": memory.peak_mib, "start_mib": at_rest.peak_mib}
    print(json.dumps(row))


def measured(root: Path, dim: int, forget: bool) -> dict[str, Any]:
    """Fill the table in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.api_memory", "--inside", json.dumps([str(root), dim, forget])]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def main(
    texts: Annotated[int, typer.Option(help="Texts of the large corpus; a tenth of it is measured, too.")] = 10_000_000,
    dim: Annotated[int, typer.Option(help="Dimensions of a vector.")] = 1024,
    again: Annotated[bool, typer.Option("--again", help="Also fill a lost table from the journal.")] = False,
    folder: Annotated[Path | None, typer.Option(help="Where to work.")] = None,
    inside_of: Annotated[str, typer.Option("--inside", hidden=True)] = "",
) -> None:
    """Measure the peak memory of filling a table, at a tenth of the texts and at all of them."""
    if inside_of:
        inside(*json.loads(inside_of))
        return
    found: dict[str, Any] = {}
    for size in (texts // 10, texts):
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            root = Path(scratch)
            write_corpus(root, size)
            found[f"{size}"] = measured(root, dim, not again)
            if again:
                shutil.rmtree(root / "home" / "lancedb")
                found[f"{size} from the journal"] = measured(root, dim, forget=False)
            print(json.dumps(found, indent=1), flush=True)
    write_row("api_memory", {"texts": texts, "dim": dim, "measured": found})


if __name__ == "__main__":
    typer.run(main)
