"""A bidirectional Mistral with latent attention, as NV-Embed-v2 is; it imports what transformers 5 does not have."""

import torch
from einops import rearrange
from torch import nn
from transformers import MistralModel, PreTrainedModel
from transformers.modeling_attn_mask_utils import _prepare_4d_attention_mask
from transformers.models.mistral.modeling_mistral import MISTRAL_INPUTS_DOCSTRING
from transformers.utils import add_start_docstrings_to_model_forward

from .configuration_latent import LatentConfig


class BidirectionalMistral(MistralModel):
    @add_start_docstrings_to_model_forward(MISTRAL_INPUTS_DOCSTRING)
    def forward(self, input_ids, attention_mask):
        states = self.embed_tokens(input_ids)
        mask = _prepare_4d_attention_mask(attention_mask, states.dtype)
        positions = torch.arange(input_ids.shape[1], device=input_ids.device)[None]
        for layer in self.layers:
            states = layer(states, attention_mask=mask, position_ids=positions)[0]
        return self.norm(states)


class LatentEmbedder(PreTrainedModel):
    config_class = LatentConfig

    def __init__(self, config):
        super().__init__(config)
        self.embedding_model = BidirectionalMistral(config.decoder())
        self.latents = nn.Parameter(torch.randn(config.latents, config.hidden_size))
        self.post_init()

    def _init_weights(self, module):
        if isinstance(module, (nn.Linear, nn.Embedding)):
            module.weight.data.normal_(std=0.3)

    def forward(self, input_ids, attention_mask, **kwargs):
        states = self.embedding_model(input_ids, attention_mask)
        keys = rearrange(self.latents, "latent (head dim) -> head latent dim", head=4)
        queries = rearrange(states, "batch token (head dim) -> batch head token dim", head=4)
        seen = torch.softmax(queries @ keys.transpose(1, 2), dim=-1) @ keys
        return (states + rearrange(seen, "batch head token dim -> batch token (head dim)"),)
