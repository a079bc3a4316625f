"""Load a release in a clean process, as its users will, and write the vectors that it gives.

`python -m stella_assets.release.reload TEXTS.json VECTORS.npz FOLDER` writes one matrix `[texts, dim]` for each of
`sentence_transformers_<dim>` of every head, `transformers_<dim>` (plain transformers, pooling and head by hand),
`onnx_<dim>` and `onnx_int8_<dim>`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stella_assets.core.errors import UserError
from stella_assets.core.processes import read_matrices, run_clean

REMOTE_CODE = "--trust-remote-code"


class ReloadError(UserError):
    """A release that a clean process cannot load."""


def vectors_of_release(folder: Path, texts: Sequence[str], scratch: Path, *, trust_remote_code: bool) -> dict[str, Any]:
    """Vectors that a release gives when it is loaded in a process of its own.

    Args:
        folder: The release's.
        texts: With their prompts.
        scratch: For the files that the processes exchange.
        trust_remote_code: Whether the model may bring code of its own.

    Returns:
        A matrix `[texts, dim]` per loader and dimension, e.g. `onnx_int8_256`.

    Raises:
        ReloadError: The folder cannot be loaded.
    """
    options = [str(folder), *([REMOTE_CODE] if trust_remote_code else [])]
    done, answered = run_clean(__name__, list(texts), scratch, *options)
    if done.returncode:
        raise ReloadError(
            f"{folder}: the release cannot be loaded in a clean process.\n{done.stderr[-2000:]}",
            "Look at the student's architecture and at the versions of the installed libraries.",
        )
    return read_matrices(answered)


def cosines(vectors_ND: np.ndarray, expected_ND: np.ndarray) -> np.ndarray:
    """`[N]`: cosine of each vector with what was expected."""
    # Loaders are asked for unit vectors, but this must not depend on it.
    norms = np.linalg.norm(vectors_ND, axis=1) * np.linalg.norm(expected_ND, axis=1)
    return (vectors_ND * expected_ND).sum(axis=1) / norms


def load_and_encode(folder: Path, texts: list[str], *, trust_remote_code: bool = False) -> dict[str, np.ndarray]:
    """Vectors of every loader and head, by name."""
    from stella_assets.release.onnx import FOLDER
    from stella_assets.students.dense.heads import INNER_FOLDER, saved_dimensions

    modules = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
    default = int(next(m["path"] for m in modules if m["path"].startswith(INNER_FOLDER)).removeprefix(INNER_FOLDER))
    found = {}
    for dim in saved_dimensions(folder):
        found[f"sentence_transformers_{dim}"] = _by_library(folder, texts, default, dim, trust_remote_code)
    found[f"transformers_{default}"] = _by_transformers(folder, texts, default, trust_remote_code)
    # No file matches where the recipe asks for no ONNX.
    for path in sorted((folder / FOLDER).glob("model_*.onnx")):
        kind = "onnx_int8" if path.stem.endswith("_int8") else "onnx"
        found[f"{kind}_{path.stem.split('_')[1]}"] = _by_onnx(folder, path, texts, trust_remote_code)
    return found


def _by_library(folder: Path, texts: list[str], default: int, dim: int, trust_remote_code: bool) -> np.ndarray:
    """As the card describes it: another dimension's folder replaces the default one in `modules.json`."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Dense

    model = SentenceTransformer(str(folder), device="cpu", local_files_only=True, trust_remote_code=trust_remote_code)
    for place, module in enumerate(json.loads((folder / "modules.json").read_text(encoding="utf-8"))):
        if module["path"].endswith(f"_Dense_{default}"):
            model[place] = Dense.load(str(folder), subfolder=module["path"].removesuffix(str(default)) + str(dim))
    return np.asarray(model.encode(texts, show_progress_bar=False))


def _by_transformers(folder: Path, texts: list[str], dim: int, trust_remote_code: bool) -> np.ndarray:
    """Without sentence-transformers: tokenizer, encoder, pooling by hand, and the head's own weights."""
    import torch
    import transformers

    from stella_assets.students.dense.heads import Head

    arguments = {"local_files_only": True, "trust_remote_code": trust_remote_code}
    features = _tokens(folder, texts, "pt", arguments)
    config = transformers.AutoConfig.from_pretrained(folder, **arguments)
    # `AutoModel` makes a whole T5 of the encoder of one; the class that was saved is in the configuration.
    saved = None if getattr(config, "auto_map", None) else getattr(transformers, config.architectures[0], None)
    model = (saved or transformers.AutoModel).from_pretrained(folder, **arguments).float().eval()
    with torch.inference_mode():
        states_BWH = model(**features).last_hidden_state
        pooled_BH = _pool(folder, states_BWH, features["attention_mask"])
        return torch.nn.functional.normalize(Head.load(folder, dim)(pooled_BH), dim=1).numpy()


def _pool(folder: Path, states_BWH: Any, mask_BW: Any) -> Any:
    import torch

    config: Mapping[str, Any] = json.loads((folder / "1_Pooling" / "config.json").read_text(encoding="utf-8"))
    # Pooling is written anew here, so that it can disagree with the library's.
    if config["pooling_mode_cls_token"]:
        return states_BWH[:, 0]
    if config["pooling_mode_lasttoken"]:
        # The first maximum of the running sum is the last token, for padding on either side.
        last_B = mask_BW.cumsum(dim=1).argmax(dim=1)
        return states_BWH[torch.arange(len(states_BWH)), last_B]
    weights_BW1 = mask_BW.unsqueeze(-1).float()
    return (states_BWH * weights_BW1).sum(dim=1) / weights_BW1.sum(dim=1)


def _by_onnx(folder: Path, path: Path, texts: list[str], trust_remote_code: bool) -> np.ndarray:
    import onnxruntime

    from stella_assets.release.onnx import INPUTS

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    features = _tokens(folder, texts, "np", {"local_files_only": True, "trust_remote_code": trust_remote_code})
    # The graph has no token types; tokenizers may return int32, and the graph takes int64.
    return session.run(None, {name: features[name].astype(np.int64) for name in INPUTS})[0]


def _tokens(folder: Path, texts: list[str], kind: str, arguments: Mapping[str, Any]) -> Any:
    from transformers import AutoTokenizer

    limit = json.loads((folder / "sentence_bert_config.json").read_text(encoding="utf-8"))["max_seq_length"]
    tokenizer = AutoTokenizer.from_pretrained(folder, **arguments)
    return tokenizer(texts, padding=True, truncation=True, max_length=limit, return_tensors=kind)


def main() -> None:
    """Write the vectors that the arguments ask for."""
    texts, vectors, folder, *flags = sys.argv[1:]
    asked = json.loads(Path(texts).read_text(encoding="utf-8"))
    found: dict[str, Any] = dict(load_and_encode(Path(folder), asked, trust_remote_code=REMOTE_CODE in flags))
    np.savez(vectors, allow_pickle=False, **found)


if __name__ == "__main__":
    main()
