"""Tasks by name, from local files, and custom ones: their data, and what is refused before anything is encoded."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from stella_assets.evaluation.local_data import TaskDataError
from stella_assets.evaluation.settings import EvaluationSettings
from stella_assets.evaluation.tables import TASKS
from stella_assets.evaluation.task_set import TaskSet, check_tasks, list_tasks
from tests.evaluation.conftest import own_task


def settings(folder: Path, **evaluation: Any) -> EvaluationSettings:
    return EvaluationSettings.model_validate(evaluation, context={"folder": folder})


def official(folder: Path, name: str, table: dict[str, Any]) -> None:
    pl.DataFrame(table).write_parquet(folder / f"{name}.parquet")


STS = {"sentence1": ["a", "b", "c"], "sentence2": ["d", "e", "f"], "score": [0.0, 2.5, 5.0]}


def test_an_official_task_reads_a_local_file_and_says_so(tmp_path):
    official(tmp_path, "STSBenchmark", STS)
    (task,) = list_tasks(settings(tmp_path, tasks=["STSBenchmark"], data="."), None)
    loaded = task.load()
    assert type(loaded).__module__.startswith("mteb.tasks.")
    assert loaded.dataset["test"]["sentence1"][:] == ["a", "b", "c"]
    assert (task.origin, loaded.metadata.revision) == ("local", task.revision())
    assert task.revision().startswith("local-")
    official(tmp_path, "STSBenchmark", STS | {"score": [0.0, 2.5, 4.0]})
    assert task.revision() != loaded.metadata.revision


def test_an_official_task_reads_a_folder_in_the_hubs_layout_through_its_own_loader(tmp_path):
    folder = tmp_path / "mteb" / "stsbenchmark-sts"
    folder.mkdir(parents=True)
    pl.DataFrame(STS).write_parquet(folder / "test-00000-of-00001.parquet")
    (task,) = check_tasks(settings(tmp_path, tasks=["STSBenchmark"], data="."))
    assert task.load().dataset["test"]["score"][:] == [0.0, 2.5, 5.0]
    assert (task.origin, task.reads_files) == ("local", False)


def test_splits_of_a_file_can_be_read_as_those_of_mteb(tmp_path):
    official(tmp_path, "SICK-R", STS | {"split": ["train", "validation", "test"]})
    wanted = {"tasks": ["SICK-R"], "data": "."}
    (plain,) = list_tasks(settings(tmp_path, **wanted), None)
    everything = {"SICK-R": {"test": ["train", "validation", "test"]}}
    (joined,) = list_tasks(settings(tmp_path, **wanted, splits=everything), None)
    assert len(plain.load().dataset["test"]) == 1
    assert len(joined.load().dataset["test"]) == 3
    assert plain.describe() != joined.describe()


def test_a_task_of_the_hub_is_pinned_to_mtebs_commit(tmp_path):
    import mteb

    (task,) = list_tasks(settings(tmp_path, tasks=["SciFact"]), None)
    assert (task.origin, task.revision()) == ("hub", mteb.get_task("SciFact").metadata.revision)


def test_benchmarks_are_known_by_name_and_a_task_of_two_is_listed_once(tmp_path):
    tasks = list_tasks(settings(tmp_path, tasks=["MTEB(eng, v2)", "NanoBEIR", "SciFact", "BIOSSES"]), None)
    names = [task.name for task in tasks]
    assert len(names) == len(set(names)) == 41 + 13 + 1
    assert {task.benchmarks for task in tasks} == {("MTEB(eng, v2)",), ("NanoBEIR",), ()}


def test_the_56_tasks_of_the_paper_hold_an_aggregate_of_twelve(tmp_path):
    tasks = list_tasks(settings(tmp_path, tasks=["MTEB(eng, v1)"]), None)
    assert len(tasks) == 56
    assert {task.name: len(task.parts) for task in tasks if task.parts} == {"CQADupstackRetrieval": 12}


@pytest.mark.parametrize(
    "kind", ["sts", "classification", "clustering", "pair_classification", "retrieval", "reranking"]
)
def test_a_custom_task_needs_two_lines(kind, tmp_path, places):
    own = [{"name": "Mine", "kind": kind, "path": str(places[kind])}]
    (task,) = check_tasks(settings(tmp_path, tasks=[], custom_tasks=own))
    loaded = task.load()
    assert (loaded.metadata.name, task.origin, loaded.data_loaded) == ("Mine", "custom", True)


def without(column: str) -> Callable[[pl.DataFrame], pl.DataFrame]:
    return lambda frame: frame.drop(column)


def with_null(column: str) -> Callable[[pl.DataFrame], pl.DataFrame]:
    return lambda frame: frame.with_columns(pl.lit(None).alias(column))


REFUSALS: dict[str, tuple[str, str, Callable[[pl.DataFrame], pl.DataFrame], str]] = {
    "no column": ("sts", "", without("score"), r"sts\.parquet: has no column `score`; it has sentence1"),
    "no labels": ("classification", "", with_null("label"), r"30 of 30 rows of split \w+ have no `label`"),
    "no test rows": ("sts", "", lambda f: f.with_columns(split=pl.lit("dev")), "no rows of split test; it has dev"),
    "no train rows": ("classification", "", without("split"), "has no `train` rows to learn from"),
    "one label": ("clustering", "", lambda f: f.with_columns(label=pl.lit("a")), "one label only"),
    "labels of pairs": (
        "pair_classification",
        "",
        lambda f: f.with_columns(label=pl.col("label") + 1),
        "are not both 0 and 1",
    ),
    "empty corpus": ("retrieval", "corpus", lambda f: f.clear(), r"corpus\.parquet: holds no text to search in"),
    "strange ids": (
        "retrieval",
        "qrels",
        lambda f: f.with_columns(doc_id=pl.lit("nowhere")),
        r"qrels\.parquet: names no text of corpus",
    ),
    **{
        f"null {column} of {table}": (
            "retrieval",
            table,
            with_null(column),
            rf"{table}\.parquet: (60 of 60|2 of 2|3 of 3) rows have no `{column}`",
        )
        for table, column in (
            ("corpus", "id"),
            ("queries", "id"),
            ("queries", "text"),
            ("qrels", "query_id"),
            ("qrels", "doc_id"),
            ("qrels", "score"),
        )
    },
    **{
        f"a judgement of {score}": (
            "retrieval",
            "qrels",
            lambda f, score=score: f.with_columns(score=pl.lit(score)),
            r"qrels\.parquet: `score` has values that are no whole numbers",
        )
        for score in (0.5, "good")
    },
    "no negative": (
        "reranking",
        "",
        lambda f: f.with_columns(negative=pl.lit([], dtype=pl.List(pl.String))),
        "has no negative text",
    ),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_data_that_cannot_be_scored_is_refused(case, places):
    kind, table, change, message = REFUSALS[case]
    path = places[kind] / f"{table}.parquet" if table else places[kind]
    change(pl.read_parquet(path)).write_parquet(path)
    with pytest.raises(TaskDataError, match=message):
        own_task(kind, places[kind]).load()


def test_unknown_names_are_refused_with_a_suggestion(tmp_path):
    where = "See `mteb available-tasks` and `mteb available-benchmarks`."
    hints = {"STSBenchmrk": "Did you mean: 'STSBenchmark'?", "MTEB(eng, v9)": where, "MTEB(eng,v1)": where}
    for name, hint in hints.items():
        with pytest.raises(TaskDataError, match="no task or benchmark") as refused:
            check_tasks(settings(tmp_path, tasks=[name]))
        assert refused.value.remedy == hint
    with pytest.raises(TaskDataError, match=r"splits: there is no task 'SICKR'"):
        check_tasks(settings(tmp_path, tasks=["BIOSSES"], splits={"SICKR": {"test": ["dev"]}}))


def test_a_folder_that_lacks_a_task_is_refused(tmp_path):
    with pytest.raises(
        TaskDataError, match=r"no data of mteb's task SciFact: neither SciFact\.parquet, .*mteb/scifact/"
    ):
        check_tasks(settings(tmp_path, tasks=["SciFact"], data="."))
    official(tmp_path, "BIOSSES", {"sentence1": ["a"], "score": [1.0]})
    with pytest.raises(TaskDataError, match=r"BIOSSES\.parquet: has no column `sentence2`"):
        check_tasks(settings(tmp_path, tasks=["BIOSSES"], data="."))
    (tmp_path / "STS12.parquet").write_bytes(b"no parquet")
    with pytest.raises(TaskDataError, match=r"STS12\.parquet: not a Parquet file"):
        check_tasks(settings(tmp_path, tasks=["STS12"], data="."))


@pytest.mark.parametrize(("origin", "place"), [("hub", "mteb"), ("local", "STSBenchmark.parquet")])
def test_data_that_changed_during_a_run_is_named_by_its_place(origin: str, place: str, tmp_path: Path):
    official(tmp_path, "STSBenchmark", STS)
    evaluation = settings(tmp_path, tasks=["STSBenchmark"], data="." if origin == "local" else None)
    row = {"task": "STSBenchmark", "type": "STS", "metric": "m", "data": origin, "revision": "old", "benchmarks": ""}
    TASKS.write(tmp_path, [row])
    with pytest.raises(TaskDataError, match=rf"{place}: the data of STSBenchmark changed during the run \(from old"):
        TaskSet(tmp_path, evaluation).open()
