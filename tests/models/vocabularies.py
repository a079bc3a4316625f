"""Tokenizers in the files in which they are published, trained on a few sentences."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import sentencepiece
from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE, WordPiece
from tokenizers.trainers import BpeTrainer, WordPieceTrainer

SUBJECTS = ["an array of numbers", "the rows of a table", "a graph with weights", "the words of a sentence",
            "a network connection", "the open file", "a tree of folders", "all images of a video"]  # fmt: skip
ACTIONS = ["sort {} in place", "how do I copy {}?", "return {} as JSON, or raise an error", "{} was closed too early",
           "compare {} with its neighbours; keep the largest", "Why is {} so slow in Python 3.12?"]  # fmt: skip
TEXTS = [action.format(subject).capitalize() for subject in SUBJECTS for action in ACTIONS]
LIMIT = 64
"""Positions of the models, special tokens included."""


def wordpiece(folder: Path, cls: str = "[CLS]", sep: str = "[SEP]", pad: str = "[PAD]", mask: str = "[MASK]") -> int:
    """BERT's lower-casing WordPiece: `vocab.txt` and `tokenizer.json`.

    Returns:
        The size of the vocabulary. The ids of `cls`, `pad` and `sep` are 0, 1 and 2, as in MPNet, unless it is BERT's.
    """
    made = Tokenizer(WordPiece(unk_token="[UNK]"))
    made.normalizer, made.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    specials = [pad, "[UNK]", cls, sep, mask] if cls == "[CLS]" else [cls, pad, sep, "[UNK]", mask]
    made.train_from_iterator(TEXTS, WordPieceTrainer(vocab_size=300, special_tokens=specials, show_progress=False))
    made.post_processor = _around(made, cls, sep)
    made.decoder = decoders.WordPiece()
    made.save(str(folder / "tokenizer.json"))
    size: int = made.get_vocab_size()
    (folder / "vocab.txt").write_text("".join(f"{made.id_to_token(i)}\n" for i in range(size)), encoding="utf-8")
    return size


def byte_level(
    folder: Path,
    specials: Sequence[str],
    begin: str | None = None,
    end: str | None = None,
    suffix: str | None = None,
) -> int:
    """BPE over bytes, as GPT-2, RoBERTa, Qwen and CLIP have it: `vocab.json`, `merges.txt` and `tokenizer.json`.

    Args:
        folder: Where the files go.
        specials: Special tokens, first in the vocabulary.
        begin: Put before each text.
        end: Put after each text.
        suffix: Ends the last token of a word, e.g. CLIP's `</w>`.
    """
    settings: dict[str, Any] = {"end_of_word_suffix": suffix} if suffix else {}
    made = Tokenizer(BPE(**settings))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        TEXTS, BpeTrainer(vocab_size=560 if suffix else 400, special_tokens=list(specials),
                          initial_alphabet=alphabet, show_progress=False, **settings)
    )  # fmt: skip
    made.post_processor = _around(made, begin, end) if begin or end else processors.ByteLevel(trim_offsets=True)
    made.decoder = decoders.ByteLevel()
    made.model.save(str(folder))
    made.save(str(folder / "tokenizer.json"))
    return int(made.get_vocab_size())


def sentence_piece(folder: Path, name: str, kind: str = "unigram", **pieces: Any) -> int:
    """A SentencePiece model alone, e.g. `sentencepiece.bpe.model`; `pieces` are arguments of its trainer.

    Returns:
        How many pieces it has.
    """
    with (folder / name).open("wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(TEXTS), model_writer=file, vocab_size=400 if kind == "bpe" else 150, model_type=kind,
            hard_vocab_limit=False, character_coverage=1.0, num_threads=1, minloglevel=2, **pieces,
        )  # fmt: skip
    return int(sentencepiece.SentencePieceProcessor(model_file=str(folder / name)).get_piece_size())


def _around(made: Tokenizer, begin: str | None, end: str | None) -> Any:
    """The post-processor that puts special tokens around a text."""
    used = [token for token in (begin, end) if token]
    shape = [*([begin] if begin else []), "$A", *([end] if end else [])]
    pair = [*shape, "$B:1", *([f"{end}:1"] if end else [])]
    return processors.TemplateProcessing(
        single=shape, pair=pair, special_tokens=[(token, made.token_to_id(token)) for token in dict.fromkeys(used)]
    )
