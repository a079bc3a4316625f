"""The recipe that benchmarks train on real texts with is a valid one."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.training_set import prepare
from stella_assets.storage.workspace import Workspace


@pytest.mark.slow
def test_the_texts_of_a_folder_become_a_training_set(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    texts = [f"The text number {number} has the word {chr(97 + number % 26) * 4}." for number in range(200)]
    pq.write_table(pa.table({"text": texts, "licence": ["CC0-1.0"] * len(texts)}), tmp_path / "data" / "a.parquet")

    made = prepare(tmp_path / "data", 60, Workspace(tmp_path / "home"), max_length=16)

    assert len(made.data["train"]) + len(made.data["dev"]) == 63
