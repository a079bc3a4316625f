"""A first module of its own, which scales the embeddings of tokens by a number of its configuration."""

import json
import os

from sentence_transformers.sentence_transformer.modules import Transformer


class Scaled(Transformer):
    def __init__(self, *args, token_scale=1.0, **kwargs):
        super().__init__(*args, **kwargs)
        self.token_scale = token_scale

    @classmethod
    def load(cls, model_name_or_path, *args, **kwargs):
        made = super().load(model_name_or_path, *args, **kwargs)
        with open(os.path.join(model_name_or_path, "scale.json"), encoding="utf-8") as file:
            made.token_scale = json.load(file)["token_scale"]
        return made

    def forward(self, features, **kwargs):
        features = super().forward(features, **kwargs)
        features["token_embeddings"] = features["token_embeddings"].sign() * (
            features["token_embeddings"].abs() ** self.token_scale
        )
        return features
