"""Storage is a base layer: it names no asset, no command, and no column of the domain."""

from pathlib import Path

import pytest

STORAGE = Path(__file__).parents[2] / "storage"
DOMAIN = (
    "concatenated_vectors", "teacher_vectors", "pooled_states", "vector_stats", "release_gate", "evaluation_",
    "stage_1", "`stella ", "STELLA_", "teacher", "student", '"text"', '"source"', '"section"', '"role"', '"split"',
)  # fmt: skip


@pytest.mark.parametrize("word", DOMAIN)
def test_storage_uses_no_term_of_the_domain(word: str):
    assert [path.name for path in STORAGE.rglob("*.py") if word in path.read_text(encoding="utf-8")] == []
