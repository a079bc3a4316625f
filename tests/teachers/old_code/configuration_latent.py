"""Configuration of a small model in the style of NV-Embed-v2."""

from transformers import MistralConfig, PretrainedConfig


class LatentConfig(PretrainedConfig):
    model_type = "latent_embedder"

    def __init__(self, vocab_size=30522, hidden_size=64, latents=8, **kwargs):
        self.vocab_size, self.hidden_size, self.latents = vocab_size, hidden_size, latents
        super().__init__(**kwargs)

    def decoder(self):
        return MistralConfig(
            vocab_size=self.vocab_size,
            hidden_size=self.hidden_size,
            intermediate_size=2 * self.hidden_size,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            attn_implementation="eager",
        )
