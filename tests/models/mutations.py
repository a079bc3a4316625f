"""Ways in which the folder of a model is not what its authors published, and what has to come of each.

`REFUSED` folders give an error. `ANOTHER` are whole models, only not this one: nothing in the folder shows it, so their
vectors are kept apart by the fingerprint, and refused where the recipe states cosines of the model's card. `HARMLESS`
folders give the same vectors.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file, save_file

from tests.models.architectures import with_tokenizer_json
from tests.models.vocabularies import byte_level, wordpiece

Outcome = Literal["refused", "another", "harmless"]
Change = Callable[[Path], Any]
REFUSED, ANOTHER, HARMLESS = "refused", "another", "harmless"
WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class Mutation:
    """A change of a model's folder.

    Attributes:
        model: A key of `MODELS`.
        name: What is wrong.
        change: Makes it so, in a copy of the folder.
        outcome: What has to come of it.
    """

    model: str
    name: str
    change: Change
    outcome: Outcome = "refused"


MUTATIONS: list[Mutation] = []


def add(model: str, name: str, change: Change, outcome: Outcome = "refused") -> None:
    MUTATIONS.append(Mutation(model, name, change, outcome))


def remove(*names: str) -> Change:
    return lambda folder: [(folder / name).unlink() for name in names]


def cut(name: str, part: float = 0.5) -> Change:
    """Only the beginning of a file, as an interrupted copy leaves it."""
    return lambda folder: (folder / name).write_bytes(
        (folder / name).read_bytes()[: int((folder / name).stat().st_size * part)]
    )


def half_written(name: str, part: float = 0.5) -> Change:
    """The right size, and zeros after the beginning, as a crash of the machine leaves it."""

    def change(folder: Path) -> None:
        content = (folder / name).read_bytes()
        kept = int(len(content) * part)
        (folder / name).write_bytes(content[:kept] + bytes(len(content) - kept))

    return change


def config(name: str = "config.json", **values: Any) -> Change:
    def change(folder: Path) -> None:
        content = json.loads((folder / name).read_text(encoding="utf-8"))
        kept = {key: value for key, value in {**content, **values}.items() if value is not None}
        (folder / name).write_text(json.dumps(kept), encoding="utf-8")

    return change


def tensors(edit: Callable[[dict[str, torch.Tensor]], Any], name: str = WEIGHTS) -> Change:
    """Edit the tensors of a weights file in place."""

    def change(folder: Path) -> None:
        safe = name.endswith(".safetensors")
        found = load_file(folder / name) if safe else torch.load(folder / name, weights_only=True)
        edit(found)
        if safe:
            save_file(found, folder / name, metadata={"format": "pt"})
        else:
            torch.save(found, folder / name)

    return change


def set_to(key: str, value: float) -> Callable[[dict[str, torch.Tensor]], Any]:
    """One number of a tensor."""
    return lambda found: found[key].view(-1)[3:4].fill_(value)


def whole(key: str) -> Callable[[dict[str, torch.Tensor]], Any]:
    """A tensor of whole numbers, as quantising leaves it."""
    return lambda found: found.update({key: (20 * found[key]).to(torch.int8)})


def rename(key: str, other: str) -> Callable[[dict[str, torch.Tensor]], Any]:
    return lambda found: found.update({other: found.pop(key)})


def without(part: str) -> Callable[[dict[str, torch.Tensor]], Any]:
    return lambda found: [found.pop(key) for key in list(found) if part in key]


def shape(key: str, edit: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[dict[str, torch.Tensor]], Any]:
    return lambda found: found.update({key: edit(found[key]).contiguous()})


def modules(edit: Callable[[list[dict[str, Any]]], Any]) -> Change:
    def change(folder: Path) -> None:
        path = folder / "modules.json"
        content = json.loads(path.read_text(encoding="utf-8"))
        edit(content)
        path.write_text(json.dumps(content), encoding="utf-8")

    return change


def sharded(folder: Path) -> None:
    """Weights in two files with an index, of which the second is missing."""
    found = load_file(folder / WEIGHTS)
    names = sorted(found)
    half = {name: found[name] for name in names[: len(names) // 2]}
    save_file(half, folder / "model-00001-of-00002.safetensors", metadata={"format": "pt"})
    place = {name: f"model-0000{1 if name in half else 2}-of-00002.safetensors" for name in names}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": place}))
    (folder / WEIGHTS).unlink()


def more_tokens(folder: Path) -> None:
    """The tokenizer of a model with a larger vocabulary, in place of the model's own."""
    (folder / "vocab.txt").unlink()
    byte_level(folder, ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"], "[CLS]", "[SEP]")


def other_order(folder: Path) -> None:
    """A vocabulary of the same size whose words have other numbers."""
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    vocabulary = content["model"]["vocab"]
    words = [word for word in vocabulary if not word.startswith("[")]
    numbers = [vocabulary[word] for word in words]
    vocabulary.update(zip(words, reversed(numbers), strict=True))
    path.write_text(json.dumps(content), encoding="utf-8")
    ordered = sorted(vocabulary, key=vocabulary.__getitem__)
    (folder / "vocab.txt").write_text("".join(f"{word}\n" for word in ordered), encoding="utf-8")


def append(name: str, line: str) -> Change:
    return lambda folder: (folder / name).write_text((folder / name).read_text(encoding="utf-8") + line)


LAYER = "encoder.layer.1."
add("bert", "no weights", remove(WEIGHTS))
add("bert", "weights cut off", cut(WEIGHTS))
add("bert", "weights cut off in their header", cut(WEIGHTS, 0.01))
add("bert", "weights empty", cut(WEIGHTS, 0))
add("bert", "weights half written, zeros after the beginning", half_written(WEIGHTS, 0.3))
add("bert", "the last page of the weights not written", half_written(WEIGHTS, 0.95))
add("bert", "a bias for each text alone", tensors(lambda f: [f[k].zero_() for k in f if "LayerNorm.weight" in k]))
add("bert", "weights of zeros", tensors(lambda found: [tensor.zero_() for tensor in found.values()]))
add("bert", "a tensor renamed", tensors(rename(f"{LAYER}output.dense.weight", f"{LAYER}output.linear.weight")))
add("bert", "all tensors under another prefix", tensors(lambda f: [rename(k, f"other.{k}")(f) for k in list(f)]))
add("bert", "a tensor missing", tensors(without(f"{LAYER}output.LayerNorm.bias")))
add("bert", "the embeddings missing", tensors(without("word_embeddings")))
add("bert", "a layer missing", tensors(without(LAYER)))
add("bert", "a layer too many for its configuration", config(num_hidden_layers=2))
add("bert", "a layer too few for its configuration", config(num_hidden_layers=4))
add("bert", "a matrix cut", tensors(shape(f"{LAYER}intermediate.dense.weight", lambda t: t[:-1])))
add("bert", "a matrix transposed", tensors(shape(f"{LAYER}intermediate.dense.weight", lambda t: t.T)))
add("bert", "rows missing in the embeddings", tensors(shape("embeddings.word_embeddings.weight", lambda t: t[:-9])))
add("bert", "NaN in a layer", tensors(set_to(f"{LAYER}output.dense.weight", float("nan"))))
add("bert", "NaN in an embedding of a rare token", tensors(set_to("embeddings.word_embeddings.weight", float("nan"))))
add("bert", "infinity in a bias", tensors(set_to(f"{LAYER}output.dense.bias", float("inf"))))
add("bert", "a matrix of whole numbers", tensors(whole(f"{LAYER}output.dense.weight")))
add("bert", "an adapter next to the weights", lambda folder: (folder / "adapter_config.json").write_text(
    '{"peft_type": "LORA", "base_model_name_or_path": "org/base"}'))  # fmt: skip
add("bert", "a tokenizer that lies elsewhere", config("sentence_bert_config.json", tokenizer_name_or_path="org/other"))
add("bert", "another width", config(hidden_size=64))
add("bert", "no configuration", remove("config.json"))
add("bert", "configuration cut off", cut("config.json"))
add("bert", "an unknown type", config(model_type="bort"))
add("bert", "the type of another architecture", config(model_type="distilbert"))
add("bert", "another activation", config(hidden_act="relu"), ANOTHER)
add("bert", "another epsilon", config(layer_norm_eps=0.5), ANOTHER)
add("bert", "no tokenizer", remove("tokenizer.json", "vocab.txt", "tokenizer_config.json"))
add("bert", "tokenizer cut off", cut("tokenizer.json"))
add("bert", "a tokenizer with more tokens", more_tokens)
add("bert", "a tokenizer with other numbers", other_order, ANOTHER)
add("bert", "no settings of the tokenizer", remove("tokenizer_config.json"), HARMLESS)
add("bert", "modules cut off", cut("modules.json"))
add("bert", "no pooling", remove("1_Pooling/config.json"))
add("bert", "pooling of another width", config("1_Pooling/config.json", word_embedding_dimension=16))
add("bert", "another pooling", config("1_Pooling/config.json", pooling_mode_cls_token=True,
                                      pooling_mode_mean_tokens=False), ANOTHER)  # fmt: skip
add("bert", "modules without pooling", modules(lambda found: found.pop(1)))
add("bert", "an unknown module", modules(lambda found: found[1].update(type="sentence_transformers.models.Pool")))
add("bert", "no list of modules", remove("modules.json"), HARMLESS)  # mean pooling is what the library adds
add("bert", "another page of the model", lambda folder: (folder / "README.md").write_text("# other"), HARMLESS)
add("layout_1_dense", "no weights of the Dense", remove("2_Dense/pytorch_model.bin"))
add("layout_1_dense", "a Dense of another width", config("2_Dense/config.json", out_features=20))
add("layout_1_dense", "NaN in the Dense", tensors(set_to("linear.weight", float("nan")), "2_Dense/pytorch_model.bin"))
add("layout_1_dense", "the Dense renamed", tensors(rename("linear.weight", "weight"), "2_Dense/pytorch_model.bin"))
add("layout_1_dense", "no bias in the Dense", tensors(without("bias"), "2_Dense/pytorch_model.bin"))
add("layout_1_dense", "an unknown activation", config("2_Dense/config.json", activation_function="torch.nn.Tan"))
add("layout_1_dense", "an activation of another package",
    config("2_Dense/config.json", activation_function="transformers.activations.GELUActivation"))  # fmt: skip
add("layout_1_dense", "pickle cut off", cut("0_Transformer/pytorch_model.bin"))
add("layout_1_dense", "pickle half written", half_written("0_Transformer/pytorch_model.bin"))
add("layout_1_dense", "a pickle that is not of tensors",
    lambda folder: torch.save({"a": Path("a")}, folder / "0_Transformer" / "pytorch_model.bin"))  # fmt: skip
add("layout_1_dense", "no vocabulary", remove("0_Transformer/vocab.txt"))
add("qwen3", "a file of several missing", sharded)
add("qwen3", "no merges", remove("merges.txt", "tokenizer.json"))
add("qwen3", "other rotary frequencies", config(rope_parameters={"rope_type": "default", "rope_theta": 50.0}), ANOTHER)
add("qwen3", "the norm of the queries missing", tensors(without("q_norm")))
add("qwen3", "padding on the other side", config("tokenizer_config.json", padding_side="right"), HARMLESS)
add("xlm_roberta_sentencepiece", "no pieces", remove("sentencepiece.bpe.model"))
add("xlm_roberta_sentencepiece", "pieces cut off", cut("sentencepiece.bpe.model"))
add("xlm_roberta_sentencepiece", "a tokenizer.json of the same pieces", with_tokenizer_json, HARMLESS)
add("custom_code", "other code", append("modeling_new.py", "\nRotaryEmbedding.forward = lambda self, x, at: x\n"))
add("custom_code", "code missing", remove("modeling_new.py"))
add("custom_code", "no code is named", config(auto_map=None))
add("custom_code", "a norm missing", tensors(without("encoder.layer.1.attn_ln")))
add("custom_module", "other code", append("custom_st.py", "\nScaled.forward = Transformer.forward\n"))
add("custom_code", "weights that the code asks to be silent about",
    lambda folder: [append("modeling_new.py", "\nNewModel._keys_to_ignore_on_load_missing = ['attn_ln']\n")(folder),
                    tensors(without("attn_ln"))(folder)])  # fmt: skip
add("roberta", "a tokenizer.json that its class does not read",
    config("tokenizer.json", normalizer={"type": "Lowercase"}))  # fmt: skip
add("static_embedding", "NaN in the table", tensors(lambda found: found["embedding.weight"].view(-1).fill_(torch.nan)))
add("static_embedding", "rows missing", tensors(shape("embedding.weight", lambda t: t[:-5])))
add("static_embedding", "table cut off", cut(WEIGHTS))
add("static_embedding", "table of zeros", tensors(lambda found: found["embedding.weight"].zero_()))
add("model2vec", "the tokenizer of another model", lambda f: [wordpiece(f, "<s>", "</s>", "<p>"), more_words(f)])
add("model2vec", "no tokenizer", remove("tokenizer.json"))
add("model2vec_quantised", "no mapping", tensors(without("mapping")))


def more_words(folder: Path) -> None:
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    vocabulary = content["model"]["vocab"]
    vocabulary.update({f"word{number}": len(vocabulary) + number for number in range(9)})
    path.write_text(json.dumps(content), encoding="utf-8")


def mutated(mutation: Mutation, published: Path, parent: Path) -> Path:
    """A copy of a published model with the change."""
    folder = parent / "mutated"
    shutil.copytree(published, folder)
    mutation.change(folder)
    return folder
