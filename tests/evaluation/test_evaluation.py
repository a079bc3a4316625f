"""Evaluation data, summary and report figures."""

from collections import Counter

import numpy as np
import pytest

from stella_assets.corpus.text import text_id
from stella_assets.evaluation.summary import summarise
from stella_assets.evaluation.tasks import BUILDERS, TaskDataError, _sentence_and_rest
from stella_assets.recipe import Recipe


def documents(count: int, sections: int = 2) -> list[dict[str, str]]:
    texts = [f"Function number {i} sorts things. It returns a new list of {i} items." for i in range(count)]
    return [{"id": text_id(t), "text": t, "section": f"package{i % sections}"} for i, t in enumerate(texts)]


def test_retrieval_asks_for_the_rest_of_a_document_by_its_first_sentence():
    tables = BUILDERS["retrieval"]([], _sentence_and_rest(documents(20), set()))
    corpus = dict(zip(tables["retrieval_corpus"]["id"], tables["retrieval_corpus"]["text"], strict=True))
    queries = tables["retrieval_queries"]
    for text, document in zip(queries["text"], queries["document"], strict=True):
        number = text.split()[2]
        assert corpus[document] == f"It returns a new list of {number} items."


def test_no_part_of_a_training_text_is_asked_about():
    rows = documents(20)
    trained_on = {text_id("Function number 3 sorts things."), text_id("It returns a new list of 4 items.")}
    kept = {half["sentence"] for half in _sentence_and_rest(rows, trained_on)}
    assert len(kept) == 18
    assert not kept & {"Function number 3 sorts things.", "Function number 4 sorts things."}


def test_pairs_are_balanced_and_wrong_halves_come_from_the_same_section():
    halves = _sentence_and_rest(documents(20), set())
    table = BUILDERS["pair_classification"]([], halves)["pair_classification"]
    assert Counter(table["labels"]) == {0: 20, 1: 20}
    section = {half["rest"]: half["section"] for half in halves} | {
        half["sentence"]: half["section"] for half in halves
    }
    pairs = zip(table["sentence1"], table["sentence2"], strict=True)
    assert all(section[first] == section[second] for first, second in pairs)


def test_classification_leaves_rare_sections_out():
    rows = documents(80)
    for row in rows[:3]:
        row["section"] = "rare"
    table = BUILDERS["classification"](rows, [])["classification"]
    assert set(table["label_text"]) == {"package0", "package1"}
    assert set(table["split"]) == {"train", "test"}


@pytest.mark.parametrize("kind", BUILDERS)
def test_too_few_test_documents_are_refused_with_the_remedy(kind):
    few = documents(1)
    with pytest.raises(TaskDataError, match=rf"evaluation\.tasks: {kind} .*(Raise|Add)"):
        BUILDERS[kind](few, _sentence_and_rest(few, set()))


def test_retention_and_gain_compare_full_dimensions_by_task_type(tiny: Recipe):
    means = {("teacher/minilm", 384): 0.8, ("concatenation", 416): 0.9, ("untouched_student", 384): 0.5}
    means |= {("stage_1", 416): 0.7, ("stage_1", 32): 0.6}
    rows = [
        {"model": model, "dimension": dim, "task": task, "type": kind, "score": mean + shift}
        for (model, dim), mean in means.items()
        for task, kind, shift in (("A", "Retrieval", -0.1), ("B", "Classification", 0.1))
    ]
    order = ["teacher/minilm", "concatenation", "untouched_student", "stage_1"]
    summary = summarise(tiny, rows, order)
    assert [(m["name"], m["dimension"], m["mean"]) for m in summary["models"]] == [
        ("teacher/minilm", 384, 0.8),
        ("concatenation", 416, 0.9),
        ("untouched_student", 384, 0.5),
        ("stage_1", 416, 0.7),
        ("stage_1", 32, 0.6),
    ]
    assert summary["gain"] == 20.0
    assert summary["retention"]["teacher/minilm"] == {"Retrieval": 0.8571, "Classification": 0.8889, "mean": 0.875}
    assert set(summary["retention"]) == {"teacher/minilm", "concatenation"}


def test_mteb_scores_our_encoder_as_it_scores_sentence_transformers(tiny: Recipe, tmp_path):
    """The same model through our encoder and through mteb's own wrapper, on the same tasks."""
    import mteb
    import pyarrow as pa
    import pyarrow.parquet as pq
    from sentence_transformers import SentenceTransformer

    from stella_assets.evaluation.encoders import MtebEncoder, PooledStates, StudentEmbedder
    from stella_assets.evaluation.mteb_tasks import load_tasks
    from stella_assets.manifest import Identity, Manifest
    from stella_assets.step import Artefact
    from stella_assets.training.student import Student

    rows = documents(60)
    halves = _sentence_and_rest(rows, set())
    tables = {}
    for build in BUILDERS.values():
        tables |= build(rows, halves)
    for name, table in tables.items():
        pq.write_table(pa.table(table), tmp_path / f"{name}.parquet")
    artefact = Artefact(
        "evaluation_tasks", tmp_path, Manifest(Identity("t", "1", {}, {}), {}, {"tasks": list(BUILDERS)})
    )
    student = Student.initialise(tiny.student.model_copy(update={"short_dims": ()}), 48, seed=0)
    student.dtype = "float32"
    student.save(tmp_path / "model", 48, {})
    ours = MtebEncoder(StudentEmbedder(PooledStates(student, ""), 48), "ours", "r")
    theirs = SentenceTransformer(str(tmp_path / "model"), device="cpu")
    scores = []
    for model in (ours, theirs):
        results = mteb.evaluate(model, load_tasks(artefact), cache=None, show_progress_bar=False)
        scores.append([result.get_score() for result in results.task_results])
    assert len(scores[0]) == 3
    np.testing.assert_allclose(scores[0], scores[1], atol=1e-3)
