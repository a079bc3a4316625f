"""Encodes texts with a SentenceTransformers model of any age. It runs by itself, in another Python than this package.

It needs Python 3.9, torch, numpy and sentence-transformers 2.3, or newer ones, and nothing of this package.

    python encoder_script.py SETTINGS.json

It loads the model and answers with one line of JSON; then it answers each line on standard input with one on standard
output. What libraries print goes to standard error.

    {"texts": "1.json", "vectors": "1.npy", "prompt": "query: "}  ->  {"rows": 32}
    an error, while loading or later  ->  {"error": "ValueError: ...", "traceback": "..."}

It ends when standard input ends, which is also when the process that started it is killed.
"""

from __future__ import annotations

import inspect
import json
import os
import queue
import shutil
import sys
import threading
import traceback
from collections.abc import Iterator
from typing import Any

TEXTS_AT_ONCE = 256
"""Tokenised at once to find their lengths."""


def load(settings: dict[str, Any]) -> tuple[Any, list[dict[str, Any]]]:
    """The model, as the settings ask for it, and what loading its weights found."""
    import torch
    import transformers
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(settings["threads"])
    dtype = getattr(torch, settings["dtype"])
    pin_code(settings["model"], settings["code"])
    records = record_weights()
    named = [int(part) for part in transformers.__version__.split(".")[:2]]
    given = {name: settings[name] for name in ("model_kwargs", "tokenizer_kwargs", "config_kwargs") if settings[name]}
    known = inspect.signature(SentenceTransformer.__init__).parameters
    # Version 2 has none of these: it loads in float32, and the format is changed below.
    if "model_kwargs" in known:
        own = {"dtype" if named >= [4, 56] else "torch_dtype": dtype}
        given["model_kwargs"] = {**own, **given.get("model_kwargs", {})}
    # There, authors set the tokenizer's attributes afterwards, e.g. `add_eos_token` of NV-Embed-v2.
    later = {} if "tokenizer_kwargs" in known else given.pop("tokenizer_kwargs", {})
    unknown = [name for name in given if name not in known]
    if unknown:
        raise ValueError("%s: this version of sentence-transformers does not take it" % unknown[0])
    model = SentenceTransformer(
        settings["model"], device=settings["device"], trust_remote_code=settings["trust_remote_code"], **given
    )
    for name, value in later.items():
        if not hasattr(model.tokenizer, name):
            raise ValueError("tokenizer_kwargs: %s has no %s" % (type(model.tokenizer).__name__, name))
        setattr(model.tokenizer, name, value)
    if settings["dense_folder"]:
        replace_dense(model, os.path.join(settings["model"], settings["dense_folder"]))
    check(model, records)
    modules = list(model)
    # Parameters only: buffers, e.g. of rotary positions, stay in the format that the model computes them in.
    for parameter in modules[0].parameters():
        if parameter.is_floating_point():
            parameter.data = parameter.data.to(dtype)
    # Pooling, Dense layers and the norm compute in float32.
    modules[0].register_forward_hook(to_float32)
    for module in modules[1:]:
        module.float()
    limit = model.max_seq_length
    model.max_seq_length = min(settings["max_length"], limit) if limit else settings["max_length"]
    return model.eval(), [{**record, "model": None} for record in records]


def pin_code(own: str, code: dict[str, str]) -> None:
    """Load code of other repositories from the folders that came with the settings, and none of any other repository.

    What a cache of the hub has may be other code, or nothing at all.
    """
    from transformers import dynamic_module_utils

    dynamic: Any = dynamic_module_utils
    original = dynamic.get_cached_module_file

    def pinned(name: Any, module_file: str, **arguments: Any) -> str:
        place = code.get(str(name), name)
        if str(place) != own and not os.path.isdir(place):
            raise ValueError("%s asks for code of another repository, %s, which its files do not name" % (own, name))
        return str(original(place, module_file, **arguments))

    dynamic.get_cached_module_file = pinned


def record_weights() -> list[dict[str, Any]]:
    """A list that fills while models are loaded: what a checkpoint lacks is random, and no library stops at that."""
    from transformers import PreTrainedModel

    records: list[dict[str, Any]] = []
    original = PreTrainedModel.__dict__["from_pretrained"].__func__

    def loading(cls: Any, *args: Any, **given: Any) -> Any:
        wanted = given.pop("output_loading_info", False)
        model, info = original(cls, *args, output_loading_info=True, **given)
        found = {name: sorted(map(str, info[name + "_keys"])) for name in ("missing", "unexpected", "mismatched")}
        records.append({"kind": cls.__name__, "model": model, **found})
        return (model, info) if wanted else model

    PreTrainedModel.from_pretrained = classmethod(loading)  # type: ignore[assignment,method-assign]
    return records


def check(model: Any, records: list[dict[str, Any]]) -> None:
    """Refuse a model whose weights were not loaded or are no numbers, and a tokenizer that is not its own."""
    import torch
    from transformers import PreTrainedModel

    loaded = {id(part) for record in records for part in record["model"].modules()}
    for part in model.modules():
        if isinstance(part, PreTrainedModel) and id(part) not in loaded:
            raise ValueError("%s was made without loading weights, so they would be random" % type(part).__name__)
    for name, parameter in model.named_parameters():
        if not torch.isfinite(parameter).all():
            raise ValueError("%s has NaN or infinity; the checkpoint is damaged" % name)
    tokenizer: Any = getattr(model, "tokenizer", None)
    if hasattr(tokenizer, "get_vocab"):
        tokens = tokenizer.get_vocab()
        # Without its files a tokenizer has the special tokens of its class, and reads every text as unknown.
        if not set(tokens) - set(tokenizer.all_special_tokens):
            raise ValueError("the tokenizer has no vocabulary; its files are missing")
        for record in records:
            rows = getattr(record["model"].config, "vocab_size", None)
            if rows is not None and max(tokens.values()) >= rows:
                raise ValueError("the tokenizer has more tokens than the model, which has embeddings for %d" % rows)


def to_float32(_module: Any, _inputs: Any, features: dict[str, Any]) -> dict[str, Any]:
    """A forward hook: what the encoder hands on, in float32."""
    import torch

    return {k: v.float() if torch.is_tensor(v) and v.is_floating_point() else v for k, v in features.items()}


def replace_dense(model: Any, folder: str) -> None:
    """Use another of a model's Dense layers."""
    places = [place for place, module in enumerate(model) if type(module).__name__ == "Dense"]
    if not places:
        raise ValueError("the model has no Dense layer to replace")
    last = places[-1]
    model[last] = type(model[last]).load(folder).to(next(model.parameters()).device)


def describe(model: Any, settings: dict[str, Any]) -> dict[str, Any]:
    """What the other side asks of a model."""
    default_prompt = (getattr(model, "prompts", None) or {}).get(getattr(model, "default_prompt_name", None))
    # It would be put before texts that come without a prompt; from here on, the other side names all prompts.
    model.default_prompt_name = None
    return {
        "default_prompt": default_prompt or "",
        # Asked of a vector: custom code does not always tell.
        "dim": int(encode(model, ["text"], "", settings["max_batch_tokens"]).shape[1]),
        "pooling": pooling_mode(model),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
    }


def pooling_mode(model: Any) -> str:
    """Mode or modes of a model's Pooling module, or `none`."""
    for module in model:
        if type(module).__name__ == "Pooling":
            if hasattr(module, "get_pooling_mode_str"):  # before sentence-transformers 6
                return str(module.get_pooling_mode_str())
            return module.pooling_mode if isinstance(module.pooling_mode, str) else "+".join(module.pooling_mode)
    return "none"


def encode(model: Any, texts: list[str], prompt: str, max_batch_tokens: int) -> Any:
    """Vectors of unit norm, float32, one row per text."""
    import numpy as np
    import torch

    vectors = None
    for batch in batches(lengths(model, texts, prompt), max_batch_tokens):
        chosen = [texts[place] for place in batch]
        with torch.inference_mode():
            rows = model.encode(
                chosen,
                batch_size=len(chosen),
                normalize_embeddings=True,
                show_progress_bar=False,
                **({"prompt": prompt} if prompt else {}),
            )
        if vectors is None:
            vectors = np.empty((len(texts), rows.shape[1]), dtype=np.float32)
        vectors[batch] = rows
    return vectors


def lengths(model: Any, texts: list[str], prompt: str) -> list[int]:
    """Tokens of each text with the prompt, cut off at the model's limit."""
    tokenise = getattr(model, "preprocess", None) or model.tokenize
    found: list[int] = []
    for start in range(0, len(texts), TEXTS_AT_ONCE):
        features = tokenise([prompt + text for text in texts[start : start + TEXTS_AT_ONCE]])
        found += [int(row.sum()) for row in features["attention_mask"]]
    return found


def batches(found: list[int], max_batch_tokens: int) -> Iterator[list[int]]:
    """Places of texts, longest first, so that the rows of a batch times its longest stay within the budget."""
    order = sorted(range(len(found)), key=lambda place: -found[place])
    start = 0
    while start < len(order):
        size = max(1, max_batch_tokens // max(1, found[order[start]]))
        yield order[start : start + size]
        start += size


def answer(model: Any, settings: dict[str, Any], asked: dict[str, str]) -> dict[str, Any]:
    """Encode the texts of one file, and write their vectors into another."""
    import numpy as np

    with open(asked["texts"], encoding="utf-8") as file:
        texts = json.load(file)
    vectors = encode(model, texts, asked["prompt"], settings["max_batch_tokens"])
    with open(asked["vectors"], "wb") as file:
        np.save(file, vectors, allow_pickle=False)
    return {"rows": len(vectors)}


def start_reading(home: str) -> Iterator[dict[str, str]]:
    """Requests as they come. They are read in a thread, so that their end is noticed while a batch is computed."""
    lines: queue.Queue[dict[str, str]] = queue.Queue()

    def read() -> None:
        for line in sys.stdin:
            lines.put(json.loads(line))
        # Nobody is left to read the vectors, and nobody else will remove the folder of a killed process.
        shutil.rmtree(home, ignore_errors=True)
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    return iter(lines.get, None)  # never None, so without an end


def main() -> None:
    """Load, then answer until the input ends."""
    with open(sys.argv[1], encoding="utf-8") as file:
        settings = json.load(file)
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    # Models print what they like; only this file writes to the descriptor that answers go to.
    os.dup2(2, 1)

    def say(value: dict[str, Any]) -> None:
        answers.write(json.dumps(value) + "\n")
        answers.flush()

    requests = start_reading(settings["home"])
    try:
        model, weights = load(settings)
        say({**describe(model, settings), "weights": weights})
    except Exception as error:
        say(failure(error))
        return
    for asked in requests:
        try:
            say(answer(model, settings, asked))
        except Exception as error:
            say(failure(error))


def failure(error: Exception) -> dict[str, Any]:
    """An error as an answer."""
    return {"error": "%s: %s" % (type(error).__name__, error), "traceback": traceback.format_exc()}


if __name__ == "__main__":
    main()
