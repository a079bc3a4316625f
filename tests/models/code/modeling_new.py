"""An encoder with rotary positions: its tables are buffers that no checkpoint holds, computed in `__init__`."""

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from .configuration_new import NewConfig


class RotaryEmbedding(nn.Module):
    def __init__(self, dim, max_positions, base, scaling=1.0):
        super().__init__()
        inv_freq = 1.0 / (base ** (torch.arange(0, dim, 2).float() / dim)) / scaling
        self.register_buffer("inv_freq", inv_freq, persistent=False)
        freqs = torch.outer(torch.arange(max_positions).float(), self.inv_freq)
        both = torch.cat([freqs, freqs], dim=-1)
        self.register_buffer("cos_cached", both.cos(), persistent=False)
        self.register_buffer("sin_cached", both.sin(), persistent=False)

    def forward(self, x, position_ids):
        cos, sin = (each[position_ids][:, None].to(x.dtype) for each in (self.cos_cached, self.sin_cached))
        a, b = x.chunk(2, dim=-1)
        cos, sin = cos.to(x.dtype), sin.to(x.dtype)
        return x * cos + torch.cat([-b, a], dim=-1) * sin


class NewEmbeddings(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size, padding_idx=config.pad_token_id)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.register_buffer("position_ids", torch.arange(config.max_position_embeddings), persistent=False)

    def forward(self, input_ids):
        return self.LayerNorm(self.word_embeddings(input_ids)), self.position_ids[None, : input_ids.shape[1]]


class NewLayer(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.heads = config.num_attention_heads
        width = config.hidden_size
        self.qkv_proj = nn.Linear(width, 3 * width)
        self.o_proj = nn.Linear(width, width)
        self.attn_ln = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.up_proj = nn.Linear(width, config.intermediate_size)
        self.down_proj = nn.Linear(config.intermediate_size, width)
        self.mlp_ln = nn.LayerNorm(width, eps=config.layer_norm_eps)

    def forward(self, hidden, mask, rotary, position_ids):
        batch, length, width = hidden.shape
        split = self.qkv_proj(hidden).view(batch, length, 3, self.heads, width // self.heads)
        query, key, value = (each.transpose(1, 2) for each in split.unbind(dim=2))
        query, key = rotary(query, position_ids), rotary(key, position_ids)
        attended = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        hidden = self.attn_ln(hidden + self.o_proj(attended.transpose(1, 2).reshape(batch, length, width)))
        return self.mlp_ln(hidden + self.down_proj(nn.functional.gelu(self.up_proj(hidden))))


class NewEncoder(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.layer = nn.ModuleList([NewLayer(config) for _ in range(config.num_hidden_layers)])

    def forward(self, hidden, mask, rotary, position_ids):
        for layer in self.layer:
            hidden = layer(hidden, mask, rotary, position_ids)
        return hidden


class NewModel(PreTrainedModel):
    config_class = NewConfig
    base_model_prefix = "new"
    supports_gradient_checkpointing = False

    def __init__(self, config, add_pooling_layer=False):
        super().__init__(config)
        self.embeddings = NewEmbeddings(config)
        self.encoder = NewEncoder(config)
        scaling = (config.rope_scaling or {}).get("factor", 1.0)
        size = config.hidden_size // config.num_attention_heads
        self.rotary_emb = RotaryEmbedding(size, config.max_position_embeddings, config.rope_theta, scaling)
        self.post_init()

    def get_input_embeddings(self):
        return self.embeddings.word_embeddings

    def set_input_embeddings(self, value):
        self.embeddings.word_embeddings = value

    def forward(self, input_ids=None, attention_mask=None, token_type_ids=None, return_dict=None, **kwargs):
        if self.config.use_memory_efficient_attention:
            raise RuntimeError("memory efficient attention needs xformers and a GPU")
        hidden, position_ids = self.embeddings(input_ids)
        mask = None
        if attention_mask is not None:
            mask = attention_mask[:, None, None, :].bool()
        return BaseModelOutput(last_hidden_state=self.encoder(hidden, mask, self.rotary_emb, position_ids))
