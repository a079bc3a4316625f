"""Negatives of queries among a million documents: time compared with a plain blocked product, and memory.

python -m benchmarks.mining [--documents 1000000] [--queries 1024] [--dimensions 384] [--device cpu]

Queries are independent of one another, so some of them against all documents show the time of each. The two alternate.
On a CPU, processor time on one thread is measured, so that other work on the machine does not decide; else the clock.
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer

from benchmarks import write_row
from stella_assets.storage.memory import PeakMemory
from stella_assets.teachers.nearest_below import DOCUMENT_BLOCK, QUERY_BLOCK, nearest_below, positive_aware_bound

TOPICS = 2000
SPREAD = 1.0
"""Length of what a text adds to its topic, of length 1: texts of one topic have a cosine of about 0.5."""


def main(
    documents: int = 1_000_000,
    queries: Annotated[int, typer.Option(help="Queries that are measured.")] = QUERY_BLOCK,
    dimensions: int = 384,
    per_query: int = 10,
    repeats: int = 3,
    device: str = "cpu",
) -> None:
    """Mine, and multiply the same blocks."""
    torch.set_num_threads(1)
    random = np.random.default_rng(0)
    topics = random.standard_normal((TOPICS, dimensions)) / dimensions**0.5
    with tempfile.TemporaryDirectory() as folder:
        documents_ND = write_documents(Path(folder) / "documents.npy", topics, documents, random)
        positive_Q = np.sort(random.choice(documents, size=queries, replace=False))
        near = documents_ND[positive_Q] + 0.7 * random.standard_normal((queries, dimensions)) / dimensions**0.5
        queries_QD = torch.from_numpy(near / np.linalg.norm(near, axis=1, keepdims=True)).float().to(device)
        blocks = range(0, queries, QUERY_BLOCK)

        def mine() -> None:
            for start in blocks:
                block_QD = queries_QD[start : start + QUERY_BLOCK]
                positive = torch.from_numpy(positive_Q[start : start + QUERY_BLOCK])
                own_QD = torch.from_numpy(documents_ND[positive.numpy()]).to(device).float()
                bound_Q = positive_aware_bound((block_QD * own_QD).sum(dim=1), 0.95)
                _, found = nearest_below(
                    block_QD, documents_ND, bound_Q, (torch.arange(len(positive)), positive), per_query
                )
                assert (found >= 0).all()

        def multiply() -> None:
            for start in blocks:
                block_QD = queries_QD[start : start + QUERY_BLOCK]
                for first in range(0, documents, DOCUMENT_BLOCK):
                    block = torch.from_numpy(np.array(documents_ND[first : first + DOCUMENT_BLOCK]))
                    block_QD @ block.to(device).float().T

        with PeakMemory() as memory:
            timed = [(seconds(multiply, device), seconds(mine, device)) for _ in range(repeats)]
    ratios = [plain / ours for plain, ours in timed]
    product, ours = (statistics.median(each) for each in zip(*timed, strict=True))
    write_row(
        "mining",
        {
            "device": device,
            "documents": documents,
            "queries": queries,
            "dimensions": dimensions,
            "per_query": per_query,
            "product_seconds": round(product, 2),
            "mining_seconds": round(ours, 2),
            "hours_of_a_million_queries": round(ours * 1e6 / queries / 3600, 2),
            "ratio": round(statistics.median(ratios), 2),
            "ratios": [round(ratio, 2) for ratio in ratios],
            "peak_mib": memory.peak_mib,
        },
    )


def write_documents(path: Path, topics: np.ndarray, documents: int, random: np.random.Generator) -> np.ndarray:
    """Unit vectors of documents of random topics, mapped from a file as the step maps them."""
    dimensions = topics.shape[1]
    mapped = np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=(documents, dimensions))
    for start in range(0, documents, DOCUMENT_BLOCK):
        rows = min(DOCUMENT_BLOCK, documents - start)
        own = random.standard_normal((rows, dimensions), dtype=np.float32) * (SPREAD / dimensions**0.5)
        block = topics[random.integers(len(topics), size=rows)] + own
        mapped[start : start + rows] = block / np.linalg.norm(block, axis=1, keepdims=True)
    mapped.flush()
    found: np.ndarray = np.load(path, mmap_mode="r")
    return found


def seconds(work: Callable[[], None], device: str) -> float:
    """Processor time on a CPU, else the time until the device is done."""
    clock = time.process_time if device == "cpu" else time.perf_counter
    started = clock()
    work()
    if device != "cpu":
        torch.accelerator.synchronize()
    return clock() - started


if __name__ == "__main__":
    typer.run(main)
