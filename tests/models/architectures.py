"""Models of the architectures that transformers knows, each with the files of its authors' tokenizer."""

import json
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModel, AutoTokenizer, CLIPModel, T5EncoderModel

from tests.models.layouts import write_module_list, write_modules
from tests.models.registry import model
from tests.models.vocabularies import LIMIT, byte_level, sentence_piece, wordpiece

DIM, LAYERS, HEADS = 32, 3, 4
ENCODER = {"hidden_size": DIM, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "intermediate_size": 64}
DECODER = {**ENCODER, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 128}


def write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=1), encoding="utf-8")


def randomise(weights: torch.nn.Module, seed: int = 0) -> Any:
    """Make all parameters matter: biases that are zero and norms that are one would not be missed."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in weights.parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        # Norms stay near one; the rest is large enough that texts differ.
        parameter.data = parameter.data + (0.2 * noise if parameter.dim() > 1 else 0.1 * noise)
    return weights.eval()


def write_transformer(folder: Path, model_type: str, made: Any = AutoModel, **config: Any) -> None:
    """Configuration and weights of a random model of a type."""
    torch.manual_seed(0)
    settings = AutoConfig.for_model(model_type, **config)
    weights = made.from_config(settings) if made is AutoModel else made(settings)
    randomise(weights).save_pretrained(str(folder))


def write_tokenizer_config(folder: Path, tokenizer: str, **settings: Any) -> None:
    write_json(folder / "tokenizer_config.json", {"tokenizer_class": tokenizer, "model_max_length": LIMIT, **settings})


def with_tokenizer_json(folder: Path) -> None:
    """Write the `tokenizer.json` that a tokenizer's class makes of its vocabulary, as its authors would."""
    AutoTokenizer.from_pretrained(str(folder)).save_pretrained(str(folder))


@model("bert")
def bert(folder: Path, **config: Any) -> None:
    tokens = wordpiece(folder)
    write_tokenizer_config(folder, "BertTokenizer", do_lower_case=True)
    write_transformer(folder, "bert", vocab_size=tokens, max_position_embeddings=LIMIT, **{**ENCODER, **config})
    write_modules(folder, "mean", DIM)


@model("roberta")
def roberta(folder: Path) -> None:
    tokens = byte_level(folder, ["<s>", "<pad>", "</s>", "<unk>", "<mask>"], "<s>", "</s>")
    write_tokenizer_config(folder, "RobertaTokenizer", model_max_length=LIMIT - 2)
    positions = {"max_position_embeddings": LIMIT, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
    write_transformer(folder, "roberta", vocab_size=tokens, type_vocab_size=1, **positions, **ENCODER)
    write_modules(folder, "mean", DIM, limit=LIMIT - 2)


def _xlm_roberta(folder: Path) -> None:
    # The class adds `<s> <pad> </s> <unk>` of fairseq before the pieces, and `<mask>` after them.
    tokens = sentence_piece(folder, "sentencepiece.bpe.model")
    write_tokenizer_config(folder, "XLMRobertaTokenizer", model_max_length=LIMIT - 2)
    positions = {"max_position_embeddings": LIMIT, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
    write_transformer(folder, "xlm-roberta", vocab_size=tokens + 2, type_vocab_size=1, **positions, **ENCODER)
    write_modules(folder, "cls", DIM, limit=LIMIT - 2)


@model("xlm_roberta")
def xlm_roberta(folder: Path) -> None:
    _xlm_roberta(folder)
    with_tokenizer_json(folder)
    (folder / "sentencepiece.bpe.model").unlink()


@model("xlm_roberta_sentencepiece")
def xlm_roberta_sentencepiece(folder: Path) -> None:
    _xlm_roberta(folder)


@model("mpnet")
def mpnet(folder: Path) -> None:
    tokens = wordpiece(folder, "<s>", "</s>", "<pad>", "<mask>")
    write_tokenizer_config(folder, "MPNetTokenizer", do_lower_case=True)
    write_transformer(
        folder, "mpnet", vocab_size=tokens, max_position_embeddings=LIMIT + 2, pad_token_id=1, bos_token_id=0,
        eos_token_id=2, relative_attention_num_buckets=32, **ENCODER,
    )  # fmt: skip
    write_modules(folder, "mean", DIM)


@model("distilbert")
def distilbert(folder: Path) -> None:
    tokens = wordpiece(folder)
    write_tokenizer_config(folder, "DistilBertTokenizer", do_lower_case=True)
    sizes = {"dim": DIM, "n_layers": LAYERS, "n_heads": HEADS, "hidden_dim": 64, "max_position_embeddings": LIMIT}
    write_transformer(folder, "distilbert", vocab_size=tokens, **sizes)
    write_modules(folder, "mean", DIM)


@model("albert")
def albert(folder: Path) -> None:
    tokens = sentence_piece(
        folder, "spiece.model", pad_id=0, unk_id=1, bos_id=-1, eos_id=-1, control_symbols="[CLS],[SEP],[MASK]"
    )
    write_tokenizer_config(folder, "AlbertTokenizer", do_lower_case=True)
    sizes = {"embedding_size": 16, "max_position_embeddings": LIMIT, "pad_token_id": 0}
    write_transformer(folder, "albert", vocab_size=tokens, **sizes, **ENCODER)
    with_tokenizer_json(folder)
    write_modules(folder, "mean", DIM)


@model("electra")
def electra(folder: Path) -> None:
    tokens = wordpiece(folder)
    write_tokenizer_config(folder, "ElectraTokenizer", do_lower_case=True)
    write_transformer(folder, "electra", vocab_size=tokens, embedding_size=16, max_position_embeddings=LIMIT, **ENCODER)
    write_modules(folder, "cls", DIM)


@model("deberta")
def deberta(folder: Path) -> None:
    tokens = byte_level(folder, ["[CLS]", "[PAD]", "[SEP]", "[UNK]", "[MASK]"], "[CLS]", "[SEP]")
    write_tokenizer_config(folder, "DebertaTokenizer")
    relative = {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "max_relative_positions": 16}
    write_transformer(
        folder, "deberta", vocab_size=tokens, max_position_embeddings=LIMIT, pad_token_id=1, **relative, **ENCODER
    )
    write_modules(folder, "mean", DIM)


@model("deberta_v2")
def deberta_v2(folder: Path) -> None:
    ids = {"pad_id": 0, "bos_id": 1, "eos_id": 2, "unk_id": 3}
    pieces = {"pad_piece": "[PAD]", "bos_piece": "[CLS]", "eos_piece": "[SEP]", "unk_piece": "[UNK]"}
    tokens = sentence_piece(folder, "spm.model", **ids, **pieces)
    write_tokenizer_config(folder, "DebertaV2Tokenizer", do_lower_case=False)
    relative = {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "position_buckets": 8}
    write_transformer(
        folder, "deberta-v2", vocab_size=tokens + 1, max_position_embeddings=LIMIT, share_att_key=True,
        norm_rel_ebd="layer_norm", max_relative_positions=-1, position_biased_input=False, **relative, **ENCODER,
    )  # fmt: skip
    with_tokenizer_json(folder)
    write_modules(folder, "mean", DIM)


@model("modernbert")
def modernbert(folder: Path) -> None:
    tokens = byte_level(folder, ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"], "[CLS]", "[SEP]")
    marks = {"unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]"}
    names = {"mask_token": "[MASK]", "model_input_names": ["input_ids", "attention_mask"]}
    write_tokenizer_config(folder, "PreTrainedTokenizerFast", **marks, **names)
    # The first layer has no norm before its attention, and every third layer sees the whole text.
    ids = {"pad_token_id": 3, "cls_token_id": 1, "sep_token_id": 2, "bos_token_id": 1, "eos_token_id": 2}
    write_transformer(
        folder, "modernbert", vocab_size=tokens, max_position_embeddings=LIMIT, local_attention=8,
        global_attn_every_n_layers=3, **ids, **ENCODER,
    )  # fmt: skip
    write_modules(folder, "cls", DIM)


@model("t5_encoder")
def t5_encoder(folder: Path) -> None:
    """Sentence-T5: the encoder of a T5 without its decoder, mean pooling, a Dense without bias."""
    tokens = sentence_piece(folder, "spiece.model", pad_id=0, eos_id=1, unk_id=2, bos_id=-1)
    write_tokenizer_config(folder, "T5Tokenizer", extra_ids=0)
    sizes = {"d_model": DIM, "d_kv": 8, "d_ff": 64, "num_layers": LAYERS, "num_heads": HEADS}
    write_transformer(
        folder, "t5", T5EncoderModel, vocab_size=tokens, relative_attention_num_buckets=8, decoder_start_token_id=0,
        pad_token_id=0, eos_token_id=1, initializer_factor=0.5, **sizes,
    )  # fmt: skip
    with_tokenizer_json(folder)
    write_modules(folder, "mean", DIM, dense=(24, "Identity", False))


@model("bart")
def bart(folder: Path) -> None:
    """A model with a decoder, whose states are those that the library pools."""
    tokens = byte_level(folder, ["<s>", "<pad>", "</s>", "<unk>", "<mask>"], "<s>", "</s>")
    write_tokenizer_config(folder, "RobertaTokenizer")
    sizes = {f"{part}_{name}": size for part in ("encoder", "decoder")
             for name, size in {"layers": LAYERS, "attention_heads": HEADS, "ffn_dim": 64}.items()}  # fmt: skip
    ids = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
    write_transformer(folder, "bart", vocab_size=tokens, d_model=DIM, max_position_embeddings=LIMIT, **sizes, **ids)
    write_modules(folder, "mean", DIM)


@model("gpt2")
def gpt2(folder: Path) -> None:
    """GPT-2, which has no padding token: its authors never padded."""
    tokens = byte_level(folder, ["<|endoftext|>"])
    write_tokenizer_config(folder, "GPT2Tokenizer")
    sizes = {"n_embd": DIM, "n_layer": LAYERS, "n_head": HEADS, "n_positions": LIMIT}
    write_transformer(folder, "gpt2", vocab_size=tokens, bos_token_id=0, eos_token_id=0, **sizes)


@model("llama")
def llama(folder: Path) -> None:
    tokens = byte_level(folder, ["<|begin_of_text|>", "<|end_of_text|>", "<|pad|>"], "<|begin_of_text|>")
    marks = {"bos_token": "<|begin_of_text|>", "eos_token": "<|end_of_text|>", "pad_token": "<|pad|>"}
    write_tokenizer_config(
        folder, "PreTrainedTokenizerFast", model_input_names=["input_ids", "attention_mask"], **marks
    )
    ids = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
    write_transformer(folder, "llama", vocab_size=tokens, **ids, **DECODER)
    write_modules(folder, "mean", DIM)


@model("qwen2")
def qwen2(folder: Path) -> None:
    tokens = byte_level(folder, ["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    write_tokenizer_config(folder, "Qwen2Tokenizer", pad_token="<|endoftext|>", eos_token="<|endoftext|>")
    sizes = {name: value for name, value in DECODER.items() if name != "head_dim"}
    write_transformer(folder, "qwen2", vocab_size=tokens, bos_token_id=0, eos_token_id=0, **sizes)
    write_modules(folder, "mean", DIM)


def _qwen3(folder: Path, side: str) -> None:
    tokens = byte_level(folder, ["<|endoftext|>", "<|im_start|>", "<|im_end|>"], end="<|endoftext|>")
    marks = {"pad_token": "<|endoftext|>", "eos_token": "<|im_end|>"}
    write_tokenizer_config(folder, "Qwen2Tokenizer", padding_side=side, **marks)
    write_transformer(folder, "qwen3", vocab_size=tokens, bos_token_id=0, eos_token_id=0, **DECODER)
    prompts = {"query": "Instruct: Given a question, retrieve what answers it\nQuery:", "document": ""}
    write_modules(folder, "lasttoken", DIM, prompts=prompts)


@model("qwen3")
def qwen3(folder: Path) -> None:
    """As Qwen3-Embedding is published: padding on the left, the state of the last token, a prompt for queries."""
    _qwen3(folder, "left")


@model("qwen3_right")
def qwen3_right(folder: Path) -> None:
    _qwen3(folder, "right")


@model("gemma3")
def gemma3(folder: Path) -> None:
    """As EmbeddingGemma is published: a Gemma 3 text model that sees both ways, mean pooling, two Dense layers."""
    ids = {"pad_id": 0, "eos_id": 1, "bos_id": 2, "unk_id": 3}
    pieces = {"pad_piece": "<pad>", "eos_piece": "<eos>", "bos_piece": "<bos>", "byte_fallback": True}
    tokens = sentence_piece(folder, "tokenizer.model", "bpe", add_dummy_prefix=False, **ids, **pieces)
    write_tokenizer_config(folder, "GemmaTokenizer", add_bos_token=True, add_eos_token=True)
    write_transformer(
        folder, "gemma3_text", vocab_size=tokens + 1, sliding_window=8, layer_types=[
            "sliding_attention", "sliding_attention", "full_attention"], use_bidirectional_attention=True,
        query_pre_attn_scalar=8, pad_token_id=0, eos_token_id=1, bos_token_id=2, **DECODER,
    )  # fmt: skip
    with_tokenizer_json(folder)
    write_modules(folder, "mean", DIM, dense=(48, "Identity", False))


@model("clip")
def clip(folder: Path) -> None:
    """CLIP's text side, in the layout of `clip-ViT-B-32`: a CLIPModel in a folder of its own, without pooling."""
    inner = folder / "0_CLIPModel"
    inner.mkdir()
    marks = ["<|startoftext|>", "<|endoftext|>"]
    tokens = byte_level(inner, marks, *marks, suffix="</w>")
    write_tokenizer_config(inner, "CLIPTokenizer", pad_token="<|endoftext|>")
    with_tokenizer_json(inner)
    pictures = {"size": {"shortest_edge": 8}, "crop_size": {"height": 8, "width": 8}}
    write_json(inner / "preprocessor_config.json", {"image_processor_type": "CLIPImageProcessor", **pictures})
    text = {**ENCODER, "vocab_size": tokens, "max_position_embeddings": LIMIT, "bos_token_id": 0, "eos_token_id": 1}
    vision = {**ENCODER, "image_size": 8, "patch_size": 4}
    write_transformer(inner, "clip", CLIPModel, text_config=text, vision_config=vision, projection_dim=24)
    write_module_list(folder, ["CLIPModel"], first="0_CLIPModel")
