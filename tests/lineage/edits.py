"""Edits of the tiny recipe, and the assets that each makes out of date."""

from collections.abc import Callable
from typing import Any

Edit = Callable[[dict[str, Any]], object]


def put(path: str, value: Any) -> Edit:
    """Set the value at a dotted path."""

    def edit(raw: dict[str, Any]) -> None:
        at: Any = raw
        *keys, last = (int(key) if key.isdigit() else key for key in path.split("."))
        for key in keys:
            at = at[key]
        at[last] = value

    return edit


END = {"evaluation_report", "release_gate", "release"}
STAGE_3 = {"stage_3", "scores/stage_3", *END}
STAGE_2 = {"stage_2", "scores/stage_2", *STAGE_3}
STAGE_1 = {"stage_1", "scores/stage_1", *STAGE_2}
SNAPSHOT = {"concatenated_vectors", "vector_stats", "scores/concatenation", *STAGE_1}
MODELS = ("teacher_minilm", "teacher_lsa", "concatenation", "base_model", "active_release")
SCORES = {f"scores/{name}" for name in (*MODELS, "stage_1", "stage_2", "stage_3")}
SEED_1 = {"seed_1/stage_1", "seed_1/stage_2", "seed_1/stage_3", "scores/seed_1"}
TASKS = {"evaluation_tasks", *SCORES, *END}
VECTORS = {"teacher_vectors/minilm", "teacher_vectors/lsa"}
CORPUS = {"corpus", *VECTORS, "tokenised_texts", *SNAPSHOT, *TASKS}
MORE_DOCS = {"name": "more", "kind": "python_docs", "packages": ["numpy"], "limit": 50}
THIRD_TEACHER = {"name": "third", "kind": "lsa", "dim": 16, "licence": "MIT"}

EDITS: dict[str, tuple[Edit, set[str]]] = {
    "nothing": (lambda _raw: None, set()),
    "how many vectors a commit writes": (put("teachers.0.unit_rows", 128), set()),
    "description": (put("description", "Other words."), END),
    "a new source": (
        lambda raw: raw["corpus"]["sources"].append(MORE_DOCS),
        {"cleaned_texts", "duplicates", *CORPUS},
    ),
    "a rule of cleaning": (
        put("corpus.clean.query.min_chars", 31),
        {"cleaned_texts", "duplicates", *CORPUS},
    ),
    "near copies": (put("corpus.deduplicate", {"threshold": 0.9}), {"duplicates", *CORPUS}),
    "a source's limit": (put("corpus.sources.0.limit", 600), CORPUS),
    "the test split": (put("corpus.test", 0.25), CORPUS),
    "a new teacher": (
        lambda raw: raw["teachers"].append(THIRD_TEACHER),
        {"teacher_vectors/third", "scores/teacher_third", *SNAPSHOT},
    ),
    "a teacher's prompt": (
        put("teachers.0.prompts", {"query": "query: "}),
        {"teacher_vectors/minilm", "scores/teacher_minilm", *SNAPSHOT},
    ),
    "a teacher's weight": (put("teachers.1.weight", 0.6), SNAPSHOT),
    "a teacher's licence": (put("teachers.1.licence", "BSD-3-Clause"), {"release"}),
    "the student's length": (put("student.max_length", 31), {"tokenised_texts", "rehearsal", *STAGE_1}),
    "the student's layers": (put("student.keep_layers", [0, 5]), {"rehearsal", *STAGE_1}),
    "a short dimension": (put("student.matryoshka_dims", [64, 16]), {"rehearsal", *STAGE_1}),
    "seed": (put("seed", 1), STAGE_1),
    "learning rate of stage 2": (put("stages.1.learning_rate", 0.003), STAGE_2),
    "learning rate of stage 3": (put("stages.2.learning_rate", 0.003), STAGE_3),
    "size of the tasks": (put("evaluation.held_out", {"max_documents": 100}), TASKS),
    "prompts of the tasks": (
        put("evaluation.prompts", {}),
        {"scores/stage_1", "scores/stage_2", "scores/stage_3", "scores/active_release", *END},
    ),
    "vectors of fewer bits": (put("evaluation.quantizations", ["binary"]), {"scores/variants", *END}),
    "other seeds": (put("evaluation.seeds", [1]), {*SEED_1, *END}),
    "the released dimension": (put("release.dimension", 32), {"rehearsal", "release"}),
    "the gate": (put("release.gate", {"gain": 1}), {"release_gate"}),
}
