"""What another process makes of the small models: `python -m tests.models.second FOLDERS.json VECTORS.npz`.

For each model: `<name>.plain` are the vectors of plain `SentenceTransformer.encode`, or of what its authors would
write by hand where that library has none; `<name>.document` and `<name>.query` are those of the probe by the teacher,
and `<name>.texts` those of `TEXTS`.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stella_assets.core.models import code_digest
from stella_assets.teachers.examination import examine
from stella_assets.teachers.kinds import TEACHERS
from stella_assets.teachers.kinds.base import PublishedTeacher
from tests.models.custom_code import construct
from tests.models.registry import TRUSTED
from tests.models.vocabularies import LIMIT, TEXTS


def as_teacher(name: str, folder: Path, **settings: Any) -> PublishedTeacher:
    """The settings of a model as a teacher in float32; its code is trusted as it is."""
    known: dict[str, Any] = {"name": "small", "licence": "MIT", "model": str(folder)}
    if "static" in name or "model2vec" in name:
        known["kind"] = "static"
    else:
        # Batches of a few texts, so that there is padding.
        known |= {"kind": "sentence_transformers", "dtype": "float32", "max_length": LIMIT, "max_batch_tokens": 256}
    if name in TRUSTED:
        known |= {"trust_remote_code": True, "code_digest": code_digest(folder)}
    made = TEACHERS[known["kind"]].model_validate({**known, **settings})
    assert isinstance(made, PublishedTeacher)
    return made


def by_library(name: str, folder: Path) -> np.ndarray:
    """Vectors `[len(TEXTS), dim]` as the model's authors compute them."""
    if name == "gpt2":
        return _by_hand(folder, None, "mean")
    if name.startswith("custom_code"):
        return _by_hand(folder, construct, "cls" if name == "custom_code" else "mean")
    from sentence_transformers import SentenceTransformer

    trusted = {"trust_remote_code": True} if name in TRUSTED else {}
    model = SentenceTransformer(str(folder), device="cpu", local_files_only=True, **trusted)
    return np.asarray(model.encode(TEXTS, normalize_embeddings=True, show_progress_bar=False))


def _by_hand(folder: Path, made: Any, pooling: str) -> np.ndarray:
    """By class and tokenizer, one text at a time: GPT-2 has no padding token, and buffers of custom code get lost."""
    from safetensors.torch import load_file
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    if made is None:
        model = AutoModel.from_pretrained(str(folder)).eval()
    else:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        model = made({key: value for key, value in config.items() if key not in ("auto_map", "architectures")})
        model.load_state_dict(load_file(folder / "model.safetensors"))
    rows = []
    with torch.inference_mode():
        for text in TEXTS:
            states_1WH = model(**tokenizer(text, return_tensors="pt")).last_hidden_state
            pooled_1H = states_1WH[:, 0] if pooling == "cls" else states_1WH.mean(dim=1)
            rows.append(torch.nn.functional.normalize(pooled_1H, dim=1)[0].numpy())
    return np.stack(rows)


def main() -> None:
    """Write the vectors of all models that the arguments name."""
    from stella_assets.core.devices import Compute

    folders, vectors = sys.argv[1:]
    found: dict[str, np.ndarray] = {}
    compute = Compute("cpu", threads=1)
    compute.limit_threads()
    for name, folder in json.loads(Path(folders).read_text(encoding="utf-8")).items():
        config = as_teacher(name, Path(folder))
        model = config.open(Path(), compute)
        found |= {f"{name}.{role}": rows for role, rows in examine(config, model, 0.9999).items()}
        found[f"{name}.texts"] = model.encode(TEXTS, "document")
        found[f"{name}.plain"] = by_library(name, Path(folder))
    np.savez(vectors, allow_pickle=False, **found)


if __name__ == "__main__":
    main()
