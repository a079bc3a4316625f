"""Evaluation texts are found wherever they were planted, and few other texts are dropped."""

from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest

from stella_assets.corpus.errors import EmptyCorpusError, EvaluationSetError
from stella_assets.corpus.evaluation_index import BANDS, ROWS, SEED, EvaluationIndex
from stella_assets.corpus.evaluation_sets import _mteb_tasks, read_set
from stella_assets.corpus.evaluation_texts import BANDS_KIND
from stella_assets.corpus.settings import Decontaminate, EvaluationSet
from stella_assets.corpus.shards import live_shards
from stella_assets.corpus.words import match_form
from stella_assets.storage.canonical import digest
from stella_assets.storage.shards import free_shards
from stella_assets.storage.workspace import Workspace
from tests.corpus.conftest import build, different, dropped_of, rows_of

SETTINGS = Decontaminate.model_validate({"sets": [{"name": "own", "path": "./eval"}]})
QUESTIONS = [
    "Who painted the ceiling of the Sistine Chapel in Rome?",
    "Which enzyme unwinds the double helix before replication begins?",
    "When did the steamship Ballarat leave Southampton for Melbourne?",
    "Does a higher dose of rituximab delay relapse in nephrotic children?",
]
PASSAGE = " ".join(different(i) for i in range(900, 906))


def found(texts: list[str], evaluation: list[str] = QUESTIONS) -> list[tuple[int, int, str]]:
    matches = EvaluationIndex(pl.Series(evaluation), SETTINGS).find(match_form(pl.Series(texts)))
    return sorted(matches.select("row", "evaluation", "rule").iter_rows())


def test_equal_texts_are_found_whatever_their_case_and_spacing():
    texts = [different(1), QUESTIONS[2].upper(), QUESTIONS[0].replace(" ", "\n  "), QUESTIONS[1].rstrip("?") + " !"]
    assert found(texts) == [(1, 2, "equal"), (2, 0, "equal"), (3, 1, "equal")]


def test_a_text_inside_a_longer_one_and_a_part_of_a_passage_are_found():
    holds = f"{different(1)} {QUESTIONS[3]} {different(2)}"
    piece = " ".join(PASSAGE.split()[20:45])
    assert found([holds, piece, different(3)], [*QUESTIONS, PASSAGE]) == [(0, 3, "contained"), (1, 4, "contained")]


def test_a_copy_with_a_tenth_of_its_words_changed_is_found():
    random = np.random.default_rng(0)
    evaluation = [f"{different(i)} {different(i + 500)}" for i in range(200)]
    changed = []
    for text in evaluation:
        words = text.split()
        for place in random.choice(len(words), round(len(words) / 10), replace=False):
            words[place] = f"changed{random.integers(1000)}"
        changed.append(" ".join(words))
    matched = {(row, match) for row, match, _ in found(changed, evaluation)}
    assert np.mean([(i, i) in matched for i in range(200)]) >= 0.95


def test_the_same_question_about_something_else_is_another_question():
    evaluation = [f"What is the capital of Place{i}?" for i in range(200)]
    assert found(["What is the capital of Mauritania?"], evaluation) == []
    assert found(["So what is the capital of Place7, then?"], evaluation) == [(0, 7, "contained")]


def test_short_common_phrases_are_not_contamination(tmp_path: Path, corpus_with, workspace: Workspace):
    (tmp_path / "eval").mkdir()
    rows = {"text": ["as soon as possible", "flux capacitor maintenance", *QUESTIONS]}
    pl.DataFrame(rows).write_parquet(tmp_path / "eval" / "own.parquet")
    texts = [f"{different(i)} Answer as soon as possible, please." for i in range(8)]
    texts += [different(i) for i in range(20, 60)] + [f"{different(70)} It is on flux capacitor maintenance."]
    (tmp_path / "lines.txt").write_text("\n".join(texts))
    decontaminate = {"decontaminate": {"sets": [{"name": "own", "path": "./eval"}]}, "clean": {}}
    made = build(corpus_with(decontaminate, kind="text", path="./lines.txt", unit="line"), workspace)
    kept = {row["text"] for row in rows_of(made)}
    assert set(texts[:8]) <= kept
    matches = pq.read_table(made["contamination"].folder / "matches.parquet").to_pylist()
    verdicts = {(row["evaluation_excerpt"], row["verdict"]) for row in matches}
    assert verdicts == {("as soon as possible", "phrase"), ("flux capacitor maintenance", "drop")}


def test_queries_are_dropped_passages_reported_and_every_one_is_accounted_for(
    tmp_path: Path, corpus_with, workspace: Workspace
):
    folder = tmp_path / "eval" / "Retrieval"
    folder.mkdir(parents=True)
    pl.DataFrame({"id": ["d1"], "title": ["A title"], "text": [PASSAGE]}).write_parquet(folder / "corpus.parquet")
    pl.DataFrame({"id": ["q1"], "text": [QUESTIONS[3]]}).write_parquet(folder / "queries.parquet")
    pl.DataFrame({"query_id": ["q1"], "doc_id": ["d1"], "score": [1]}).write_parquet(folder / "qrels.parquet")
    texts = [*(different(i) for i in range(50)), QUESTIONS[3].lower(), PASSAGE]
    (tmp_path / "lines.txt").write_text("\n".join(texts))
    for documents, gone in (("report", {texts[-2]}), ("drop", {texts[-2], texts[-1]})):
        sets = [{"name": "own", "path": "./eval", "documents": documents}]
        corpus = corpus_with(
            {"decontaminate": {"sets": sets}, "clean": {}}, kind="text", path="./lines.txt", unit="line"
        )
        made = build(corpus, workspace)
        assert set(texts) - {row["text"] for row in rows_of(made)} == gone
        dropped = {row["excerpt"]: row for row in dropped_of(made)}
        assert len(dropped) == len(gone)
        assert dropped[texts[-2]]["rule"] == "evaluation text, equal"
        assert dropped[texts[-2]]["detail"] == f"Retrieval: {QUESTIONS[3]}"
        tasks = pl.read_parquet(made["contamination"].folder / "tasks.parquet")
        assert tasks.filter(role="document")["texts_dropped"].item() == (documents == "drop")
        assert tasks.filter(role="document")["texts_reported"].item() == (documents == "report")
        assert made["contamination"].manifest.metrics["evaluation_digest"] == made["evaluation_texts"].digest
        assert all(check.passed for name in ("contamination", "corpus") for check in made[name].manifest.checks)


def test_augmented_texts_are_compared_with_the_evaluation_texts_too(tmp_path: Path, corpus_with, workspace: Workspace):
    (tmp_path / "eval").mkdir()
    hidden = "Rituximab delays the relapse of children by many months."
    evaluation = f"{different(800)}. {hidden} {different(801)}. {different(802)}. {different(803)}. {different(804)}."
    pl.DataFrame({"text": [evaluation]}).write_parquet(tmp_path / "eval" / "own.parquet")
    holds = (
        f"{different(810)} and so on. {hidden} {different(811)}. {different(812)}. {different(813)}. {different(814)}."
    )
    (tmp_path / "lines.txt").write_text("\n".join([*(different(i) for i in range(50)), holds]))
    sets = {"decontaminate": {"sets": [{"name": "own", "path": "./eval"}]}, "clean": {}, "dev": 0.2, "test": 0.2}
    cut = {"augment": {"cut": 1.0, "max_sentences": 1}}
    made = build(corpus_with(sets | cut, kind="text", path="./lines.txt", unit="line"), workspace)
    assert hidden not in {row["text"] for row in rows_of(made)}
    assert [row["excerpt"] for row in dropped_of(made)] == [hidden]


REFUSED = {
    "no folder": (EvaluationSet.model_validate({"name": "own", "path": "/absent"}), "has no Parquet file there"),
    "no such task": (EvaluationSet.model_validate({"name": "own", "tasks": ["NoSuchTask"]}), "mteb has no such task"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_an_evaluation_set_that_cannot_be_read_is_refused(case: str):
    chosen, message = REFUSED[case]
    with pytest.raises(EvaluationSetError, match=message):
        list(read_set(chosen))


def test_a_file_without_texts_and_a_missing_split_are_named(tmp_path: Path):
    pl.DataFrame({"label": [1]}).write_parquet(tmp_path / "own.parquet")
    with pytest.raises(EvaluationSetError, match=r"own.parquet: no column of texts; it has label"):
        list(read_set(EvaluationSet.model_validate({"name": "own", "path": str(tmp_path)})))
    pl.DataFrame({"text": ["a"], "split": ["test"]}).write_parquet(tmp_path / "own.parquet")
    with pytest.raises(EvaluationSetError, match="no text in splits dev; there are test"):
        list(read_set(EvaluationSet.model_validate({"name": "own", "path": str(tmp_path), "splits": ["dev"]})))


def test_texts_of_mteb_tasks_are_read_by_role(monkeypatch):
    """Real task classes; their data would come from the hub."""
    import mteb
    from datasets import Dataset, DatasetDict

    pairs = Dataset.from_dict({"sentence1": ["one"], "sentence2": ["two"], "score": [1.0]})
    passages = Dataset.from_dict({"id": ["d"], "title": ["Title"], "text": ["passage"]})
    asked = Dataset.from_dict({"id": ["q"], "text": ["question"]})
    data = {
        "STSBenchmark": DatasetDict({"test": pairs}),
        "SciFact": {"default": {"test": {"corpus": passages, "queries": asked, "relevant_docs": {"q": {"d": 1}}}}},
    }
    for name, dataset in data.items():
        task = type(mteb.get_task(name))
        monkeypatch.setattr(task, "load_data", lambda self, dataset=dataset, **_: setattr(self, "dataset", dataset))
    chosen = EvaluationSet.model_validate({"name": "official", "tasks": list(data), "splits": ["test"]})
    assert list(read_set(chosen)) == [
        ("official", "STSBenchmark", "test", "query", "one"),
        ("official", "STSBenchmark", "test", "query", "two"),
        ("official", "SciFact", "test", "document", "Title\npassage"),
        ("official", "SciFact", "test", "query", "question"),
    ]


def test_texts_that_repeat_themselves_are_found():
    refrain = " ".join(PASSAGE.split()[:20])
    song, novel = " ".join([refrain] * 40), " ".join(different(i) for i in range(60))
    # A repeated sequence counts once, whether the evaluation text or the other one repeats it.
    assert found([f"{novel} {song} {novel}"], [*QUESTIONS, song]) == [(0, 4, "contained")]
    assert found([song], [*QUESTIONS, f"{novel} {refrain}"]) == [(0, 4, "contained")]


def test_evaluation_texts_that_chance_explains_are_compared_for_equality_only():
    assert found(["yes", "yes, it is", different(1)], ["Yes."]) == [(0, 0, "equal")]


def test_sources_without_texts_hold_no_evaluation_text(tmp_path: Path, corpus_with, workspace: Workspace):
    (tmp_path / "eval").mkdir()
    pl.DataFrame({"text": QUESTIONS}).write_parquet(tmp_path / "eval" / "own.parquet")
    (tmp_path / "lines.txt").write_text("")
    sets = {"decontaminate": {"sets": [{"name": "own", "path": "./eval"}]}, "clean": {}}
    with pytest.raises(EmptyCorpusError, match="no training texts are left"):
        build(corpus_with(sets, kind="text", path="./lines.txt", unit="line"), workspace)


def test_the_check_says_how_many_texts_were_planted(tmp_path: Path, corpus_with, workspace: Workspace):
    (tmp_path / "eval").mkdir()
    pl.DataFrame({"text": QUESTIONS}).write_parquet(tmp_path / "eval" / "own.parquet")
    (tmp_path / "lines.txt").write_text("\n".join(different(i) for i in range(60)))
    sets = {"decontaminate": {"sets": [{"name": "own", "path": "./eval"}]}, "clean": {}}
    made = build(corpus_with(sets, kind="text", path="./lines.txt", unit="line"), workspace)
    (check,) = made["contamination"].manifest.checks
    assert check.description.startswith("of 4 evaluation texts, planted as they are")


def test_bands_of_evaluation_texts_are_kept_as_long_as_the_texts_and_are_named_after_their_settings(
    tmp_path: Path, corpus_with, workspace: Workspace
):
    (tmp_path / "eval").mkdir()
    pl.DataFrame({"text": QUESTIONS}).write_parquet(tmp_path / "eval" / "own.parquet")
    (tmp_path / "lines.txt").write_text("\n".join(different(i) for i in range(60)))
    sets = {"decontaminate": {"sets": [{"name": "own", "path": "./eval"}]}, "clean": {}}
    made = build(corpus_with(sets, kind="text", path="./lines.txt", unit="line"), workspace)
    (bands,) = (workspace.shards / BANDS_KIND).rglob("*.parquet")
    assert bands.stem == f"{made['evaluation_texts'].digest}-{digest([BANDS, ROWS, SEED])}"
    alive = [artefact.folder for artefact in made.values()]
    assert free_shards(workspace, lambda: live_shards(alive), dry_run=False) == []
    assert bands.is_file()
    without = [artefact.folder for name, artefact in made.items() if name != "evaluation_texts"]
    freed = free_shards(workspace, lambda: live_shards(without), dry_run=False)
    assert [row["kind"] for row in freed] == [BANDS_KIND]


def test_a_benchmark_stands_for_all_its_tasks_and_their_parts():
    def names(*tasks: str) -> list[str]:
        chosen = EvaluationSet.model_validate({"name": "mteb", "tasks": list(tasks)})
        return [task.metadata.name for task in _mteb_tasks(chosen)]

    found = names("MTEB(eng, v1)")
    # 56 tasks, of which CQADupstackRetrieval is the mean of twelve.
    assert len(found) == 55 + 12
    assert {"SciFact", "CQADupstackGisRetrieval"} <= set(found)
    assert "CQADupstackRetrieval" not in found
    assert names("SciFact") == ["SciFact"]
