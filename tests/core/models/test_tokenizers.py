"""A tokenizer without its files, or of another model, is refused; training and evaluation have the same one."""

from pathlib import Path
from typing import Any

import pytest
from sentence_transformers import SentenceTransformer
from tokenizers import Tokenizer

from stella_assets.core.config import ModelSource
from stella_assets.core.errors import UserError
from stella_assets.core.models import TokenizerError, load_sentence_transformer, load_tokenizer
from stella_assets.students import DenseConfig
from stella_assets.teachers.kinds import SentenceTransformersTeacher
from tests.core.models.folders import change_json
from tests.models import build

VOCABULARIES = ("tokenizer.json", "vocab.txt", "vocab.json", "merges.txt", "spiece.model", "sentencepiece.bpe.model")


def refuse(folder: Path, said: str) -> None:
    source = ModelSource(model=str(folder))
    teacher = {"name": "a", "kind": "sentence_transformers", "licence": "MIT", "model": str(folder)}
    for attempt in (
        lambda: load_tokenizer(source),
        lambda: load_sentence_transformer(source),
        lambda: DenseConfig(model=str(folder), max_length=32).check([]),
        lambda: SentenceTransformersTeacher.model_validate(teacher).check(),
    ):
        with pytest.raises(TokenizerError, match=said):
            attempt()


@pytest.mark.parametrize("name", ["bert", "distilbert", "roberta", "qwen2", "xlm_roberta", "albert", "modernbert"])
def test_a_folder_without_the_files_of_its_tokenizer_is_refused(name: str, tmp_path: Path):
    folder = build(name, tmp_path)
    for file in VOCABULARIES:
        (folder / file).unlink(missing_ok=True)
    refuse(folder, f"{folder}: .*tokenizer.*Restore the files of the tokenizer")


def test_lengths_that_are_no_numbers_are_named(tmp_path: Path):
    folder = build("bert", tmp_path)
    change_json(folder / "sentence_bert_config.json", max_seq_length="all")
    with pytest.raises(UserError, match=r"sentence_bert_config.json: max_seq_length 'all' is no number of tokens"):
        load_sentence_transformer(ModelSource(model=str(folder)))
    change_json(folder / "sentence_bert_config.json", max_seq_length=16)
    change_json(folder / "tokenizer_config.json", model_max_length="all")
    refuse(folder, f"{folder}: the tokenizer cannot be loaded .*Restore the files of the tokenizer")


def test_a_byte_level_vocabulary_without_its_merges_is_refused(tmp_path: Path):
    folder = build("roberta", tmp_path)
    (folder / "tokenizer.json").unlink(missing_ok=True)
    (folder / "merges.txt").unlink(missing_ok=True)
    refuse(folder, r"merges\.txt: no such file")


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(tmp_path: Path):
    folder, other = build("bert", tmp_path), build("roberta", tmp_path)
    for file in (*VOCABULARIES, "tokenizer_config.json"):
        (folder / file).unlink(missing_ok=True)
        if (other / file).is_file():
            (other / file).rename(folder / file)
    refuse(folder, r"has token .* with number 399, and the model has embeddings for 199 tokens")


def test_a_tokenizer_of_another_folder_is_refused(tmp_path: Path):
    folder = build("bert", tmp_path)
    change_json(folder / "sentence_bert_config.json", tokenizer_name_or_path="org/other")
    refuse(folder, r"takes the tokenizer from elsewhere \(`tokenizer_name_or_path` is 'org/other'\)")


LOWERED = {"normalizer": {"type": "Lowercase"}}
SPLIT = {"pre_tokenizer": {"type": "Whitespace"}}


@pytest.mark.parametrize(
    ("name", "change"), [("roberta", LOWERED), ("gpt2", SPLIT), ("qwen2", LOWERED), ("xlm_roberta", SPLIT)]
)
def test_a_class_that_passes_over_what_tokenizer_json_says_is_refused(
    name: str, change: dict[str, Any], tmp_path: Path
):
    folder = build(name, tmp_path)
    load_tokenizer(ModelSource(model=str(folder)))
    change_json(folder / "tokenizer.json", **change)
    refuse(folder, r"by tokenizer\.json the tokens of .* of the installed transformers makes .*`tokenizer_class`")
    if name == "qwen2":
        return  # transformers takes its own class for this type, whatever the files say
    change_json(folder / "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast")
    ours = load_tokenizer(ModelSource(model=str(folder)))("Why is an ARRAY so slow")["input_ids"]
    # As transformers 4 reads every such file.
    assert ours == Tokenizer.from_file(str(folder / "tokenizer.json")).encode("Why is an ARRAY so slow").ids


def test_lower_casing_by_the_settings_of_a_module_reaches_training_too(tmp_path: Path):
    folder = build("roberta", tmp_path)
    change_json(folder / "sentence_bert_config.json", do_lower_case=True)
    theirs = SentenceTransformer(str(folder), device="cpu").tokenizer
    ours = load_tokenizer(ModelSource(model=str(folder)))
    texts = ["Return A SORTED Copy", "return a sorted copy"]
    assert ours(texts)["input_ids"] == theirs(texts)["input_ids"]
    assert len(set(map(tuple, ours(texts)["input_ids"]))) == 1


def test_arguments_of_the_tokenizer_reach_it(tmp_path: Path):
    folder = build("gpt2", tmp_path)
    source = ModelSource(model=str(folder), tokenizer_kwargs={"pad_token": "<|endoftext|>"})
    assert load_tokenizer(source).pad_token_id == 0
    assert load_sentence_transformer(source).encode(["a text", "a longer text"]).shape == (2, 32)


@pytest.mark.parametrize(
    ("name", "given", "said"),
    [
        ("bert", {"paddingside": "left"}, "paddingside is 'left', and BertTokenizer has no such setting"),
        ("bert", {"add_eos_token": True}, "add_eos_token is True, and BertTokenizer has False"),
        ("qwen2", {"add_bos_token": True}, "add_bos_token is True, and Qwen2Tokenizer has "),
    ],
)
def test_arguments_without_effect_are_refused(name: str, given: dict[str, Any], said: str, published):
    with pytest.raises(TokenizerError, match=rf"tokenizer_kwargs\.{said}.*Correct or remove"):
        load_tokenizer(ModelSource(model=str(published(name)), tokenizer_kwargs=given))


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("bert", {"padding_side": "left", "do_lower_case": False, "strip_accents": None, "use_fast": False}),
        ("llama", {"add_eos_token": True, "unk_token": None, "legacy": False}),
        ("bert", {"pad_token": {"content": "[UNK]", "lstrip": False, "__type": "AddedToken"}}),
        ("bert", {"auto_map": {}, "clean_up_tokenization_spaces": False}),
    ],
)
def test_arguments_with_effect_are_taken(name: str, given: dict[str, Any], published):
    load_tokenizer(ModelSource(model=str(published(name)), tokenizer_kwargs=given))
