"""Run by the older Python: saves the model as its authors would, and the vectors that their own library computes.

python publish.py FOLDER TOKENIZER TEXTS.json VECTORS.npz
"""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import torch
from sentence_transformers import SentenceTransformer, __version__
from sentence_transformers.models import Dense
from transformers import AutoConfig, AutoModel

folder, tokenizer, texts, vectors = map(Path, sys.argv[1:])
folder.mkdir()
for file in (*Path(__file__).parent.glob("*_latent.py"), *tokenizer.glob("*token*.json"), *tokenizer.glob("vocab.txt")):
    shutil.copy(file, folder)
names = {"AutoConfig": "configuration_latent.LatentConfig", "AutoModel": "modeling_latent.LatentEmbedder"}
(folder / "config.json").write_text(json.dumps({"model_type": "latent_embedder", "auto_map": names}))
torch.manual_seed(0)
config = AutoConfig.from_pretrained(folder, trust_remote_code=True)
AutoModel.from_config(config, trust_remote_code=True).save_pretrained(folder)
written = json.loads((folder / "config.json").read_text())
(folder / "config.json").write_text(json.dumps({**written, "auto_map": names}))

for name, dim in (("2_Dense", 48), ("2_Dense_16", 16)):
    (folder / name).mkdir()
    Dense(64, dim).save(str(folder / name))
(folder / "1_Pooling").mkdir()
pooling = {"word_embedding_dimension": 64, "pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}
(folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
modules = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Dense", "Dense"), ("3_Normalize", "Normalize")]
(folder / "3_Normalize").mkdir()
(folder / "modules.json").write_text(
    json.dumps(
        [
            {"idx": number, "name": str(number), "path": path, "type": "sentence_transformers.models." + kind}
            for number, (path, kind) in enumerate(modules)
        ]
    )
)
settings = {"__version__": {"sentence_transformers": __version__}, "prompts": {"search": "Instruct: find\nQuery: "}}
(folder / "config_sentence_transformers.json").write_text(json.dumps(settings))
(folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 64, "do_lower_case": False}))

model = SentenceTransformer(str(folder), trust_remote_code=True, device="cpu")
lines = json.loads(texts.read_text())
found = {"document": model.encode(lines), "query": model.encode(lines, prompt_name="search")}
model[2] = Dense.load(str(folder / "2_Dense_16"))
model.max_seq_length = 16
found["small"] = model.encode(lines, normalize_embeddings=True)
np.savez(vectors, **found)
