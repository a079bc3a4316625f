"""Step `corpus`: the texts that are left, mixed, split and written in the order of ids, with an account of the rest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from stella_assets.core.present import Picture, Rows, Schema, Shown
from stella_assets.core.progress import progress_bar
from stella_assets.core.step import Artefact, BuildContext, CheckSpec, Presentation, Result, Step, from_folder
from stella_assets.corpus.contamination import Contamination
from stella_assets.corpus.dropped import DROPPED_FILE, as_dropped
from stella_assets.corpus.duplicates import Duplicates
from stella_assets.corpus.errors import EmptyCorpusError
from stella_assets.corpus.evaluation_texts import EvaluationTexts
from stella_assets.corpus.mix import Mix
from stella_assets.corpus.read import CORPUS_FILE, LICENCES_FILE, CorpusTexts
from stella_assets.corpus.settings import CorpusSettings
from stella_assets.corpus.shards import CleanedTexts
from stella_assets.corpus.tables import DROPPED, FUNNEL, TEXTS
from stella_assets.corpus.tally import FunnelRow, Tally, funnel
from stella_assets.storage.polars import pl
from stella_assets.storage.sorted_rows import SortedRows, write_in_groups

CODE_VERSION = "3"


def corpus_step(
    recipe: str,
    *,
    corpus: CorpusSettings,
    cleaned: Step[CleanedTexts],
    duplicates: Step[Duplicates],
    evaluation_texts: Step[EvaluationTexts] | None,
    contamination: Step[Contamination] | None,
) -> Step[CorpusTexts]:
    """The step that makes `corpus`.

    Args:
        recipe: Name of the recipe.
        corpus: Sources with weights and limits, augmentation, and fractions of splits.
        cleaned: The texts.
        duplicates: Which of them are left.
        evaluation_texts: Texts that the corpus must not hold; None where the recipe names none.
        contamination: What was removed because of them, for the account.
    """
    before = tuple(step for step in (cleaned, duplicates, evaluation_texts, contamination) if step is not None)

    def build(context: BuildContext) -> Result:
        texts = context.read(cleaned)
        evaluation = context.read(evaluation_texts) if evaluation_texts else None
        mix = Mix(corpus, texts, context.read(duplicates).left(), evaluation)
        tally = write_corpus(mix, context.folder, context.scratch)
        # All rows, malformed ones too: the funnel starts with what the sources hold.
        read: Counter[str] = Counter()
        for shard in texts.shards:
            read[shard.source] += shard.read
        folders = [context.folder, *(context.artefact(step).folder for step in before)]
        rows = funnel(read, folders, tally.sources)
        FUNNEL.write(context.folder, rows)
        _require_training_texts(corpus, tally, rows)
        tally.licence_table().write_parquet(context.folder / LICENCES_FILE)
        return Result(metrics=tally.metrics(), checks=tally.checks(corpus.splits()))

    return Step(
        recipe=recipe,
        name="corpus",
        code_version=CODE_VERSION,
        settings={
            # The rest of a source's settings decides `cleaned_texts`, whose digest is among the inputs.
            "mix": {source.name: {"weight": source.weight, "limit": source.limit} for source in corpus.sources},
            "augment": corpus.augment.settings(),
            "dev": corpus.dev,
            "test": corpus.test,
            # Pieces of cut texts are judged again by length, so these limits decide this step's output as well.
            "min_chars": corpus.clean.min_chars(),
        },
        dependencies=before,
        build=build,
        read=from_folder(CorpusTexts),
        presentation=Presentation(
            group="corpus",
            kinds=frozenset({"parquet"}),
            description="The texts to learn from: mixed, each once, split by hash into train, dev and test.",
            checks=(
                CheckSpec("ids_are_unique", "Every text is there once."),
                # Blocking: stages are measured on dev texts, and before them come the teachers, which can take days.
                CheckSpec("every_split_has_texts", "Every split that the recipe asks for has texts.", blocking=True),
                CheckSpec(
                    "no_evaluation_text_is_there",
                    "No text equals an evaluation text that the recipe wants dropped.",
                    blocking=True,
                ),
            ),
            show=_show,
        ),
    )


def write_corpus(mix: Mix, folder: Path, scratch: Path) -> Tally:
    """Write `corpus.parquet`, one row per text in the order of ids, and `dropped.parquet`, what mixing left out.

    Args:
        mix: The texts.
        folder: Of the artefact.
        scratch: For temporary files.

    Returns:
        Counts of what was written, and the checks made while writing.
    """
    # Mixing goes shard by shard, the file by id: rows are sorted on disk, in bounded memory.
    texts, dropped = SortedRows(scratch / "texts"), SortedRows(scratch / "dropped")
    with progress_bar(mix.texts, "corpus", "texts") as bar:
        for count, taken, left_out in mix.shards():
            # `key` is for the tally only; the schema of the file leaves it out.
            texts.add(taken.select(*TEXTS.schema.names, "key"))
            dropped.add(as_dropped(left_out.with_columns(detail=None)))
            bar.update(count)
    tally = Tally(mix.forbidden)
    # The corpus first: writing it adds the last rows to `dropped`.
    write_in_groups(folder / CORPUS_FILE, TEXTS.schema, _each_once(texts, tally, dropped))
    write_in_groups(folder / DROPPED_FILE, DROPPED.schema, dropped.parts(DROPPED.schema.names))
    return tally


def _each_once(texts: SortedRows, tally: Tally, dropped: SortedRows) -> Iterator[pl.DataFrame]:
    """Texts by id, each id once; a piece that equals another text is dropped."""
    # An empty `augmentation` sorts first: of equal ids the text itself stays, and not a piece that equals it.
    for rows in texts.parts(["id", "augmentation", "source", "parent", "origin"]):
        # Parts are made by the beginning of the id, so all rows with one id are in the same part.
        first = rows["id"].is_first_distinct()
        twice = rows.filter(~first).with_columns(rule=pl.lit("duplicate"), value=pl.lit(1.0), detail=None)
        dropped.add(as_dropped(twice))
        once = rows.filter(first)
        tally.add(once)
        yield once


def _require_training_texts(corpus: CorpusSettings, tally: Tally, rows: Sequence[FunnelRow]) -> None:
    """Raise `EmptyCorpusError` if no training text is left; the message holds the funnel."""
    if tally.splits["train"]:
        return
    table = "; ".join(f"{row['source']}: {row['rule']} {row['texts']:,}" for row in rows)
    raise EmptyCorpusError(
        f"corpus: no training texts are left ({table or 'the sources hold nothing'}).",
        f"Look at corpus.clean, limits, weights and paths, and at dev {corpus.dev} and test {corpus.test}.",
    )


def _show(artefact: Artefact) -> Mapping[str, Shown]:
    from stella_assets.corpus import plots

    texts = CorpusTexts(artefact.folder)
    return {
        "columns": Schema([(field.name, str(field.type)) for field in TEXTS.schema]),
        "funnel": Picture(plots.corpus_funnel(texts.funnel()), "corpus funnel"),
        "licences": Rows(texts.licences().to_dicts()),
    }
