"""Token vectors: their markers, lengths, skip list and pooling, and that sentence-transformers reads what is saved."""

import string
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stella_assets.core.config import ModelSource
from stella_assets.core.devices import Compute
from stella_assets.core.models import code_digest
from stella_assets.training.retrievers.base import RetrieverError, Row
from tests.models import TEXTS
from tests.training.retrievers.conftest import late, start

QUERIES, DOCUMENTS = TEXTS[:3], [f"{a} {b}." for a, b in zip(TEXTS[3:6], TEXTS[6:9], strict=True)]


def test_scores_are_sums_of_the_largest_cosines(model):
    retriever = start(late(), model)
    encoder = retriever.model
    queries, documents = encoder.encode_query(QUERIES), encoder.encode_document(DOCUMENTS)
    naive = [
        sum(max(float(a.double() @ b.double()) for b in document) for a in query)
        for query, document in zip(queries, documents, strict=True)
    ]
    np.testing.assert_allclose(retriever.score_pairs(QUERIES, DOCUMENTS), naive, rtol=1e-5)
    # In training, too, and with gradients.
    outputs = retriever.outputs([Row("query", text) for text in QUERIES])
    assert outputs[0].requires_grad
    for output, query in zip(outputs, queries, strict=True):
        torch.testing.assert_close(output.detach(), query.clone(), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["bert", "modernbert", "qwen3", "t5_encoder", "xlm_roberta"])
def test_every_architecture_is_saved_as_sentence_transformers_loads_it(published, tmp_path, name):
    from sentence_transformers import MultiVectorEncoder

    settings = late(token_dim=8)
    retriever = start(settings, published(name))
    retriever.save(tmp_path / "model")
    other = MultiVectorEncoder(str(tmp_path / "model"))
    again = settings.load(tmp_path / "model", Compute())
    for task in ("query", "document"):
        encode = f"encode_{task}"
        for first, second, third in zip(
            *(getattr(model, encode)(DOCUMENTS) for model in (retriever.model, other, again.model)), strict=True
        ):
            assert first.shape[1] == 8
            assert torch.equal(first, second)
            assert torch.equal(first, third)
    assert np.array_equal(retriever.score_pairs(QUERIES, DOCUMENTS), again.score_pairs(QUERIES, DOCUMENTS))
    assert not (tmp_path / "model" / "README.md").exists()


def test_an_encoder_with_code_of_its_own_is_saved_with_it(published, tmp_path):
    from sentence_transformers import MultiVectorEncoder

    base = published("custom_code")
    source = ModelSource(model=str(base), trust_remote_code=True, code_digest=code_digest(base))
    retriever = late().initialise(source, None, 3, Compute())
    retriever.save(tmp_path / "model")
    other = MultiVectorEncoder(str(tmp_path / "model"), trust_remote_code=True)
    again = late().begun_with(source).load(tmp_path / "model", Compute())
    for model in (other, again.model):
        for first, second in zip(*(each.encode_document(DOCUMENTS) for each in (retriever.model, model)), strict=True):
            assert torch.equal(first, second)
    with pytest.raises(ValueError, match="trust_remote_code"):
        late().load(tmp_path / "model", Compute())


def test_markers_lengths_and_skip_list_are_part_of_the_model(model):
    plain = {"query_marker": "", "document_marker": "", "skiplist": ()}
    text = DOCUMENTS[0]
    marked, bare = start(late(), model).model, start(late(**plain), model).model
    tokenizer = bare.tokenizer
    tokens = tokenizer(text)["input_ids"]
    assert len(bare.encode_document([text])[0]) == len(tokens)
    assert len(bare.encode_query([text])[0]) == min(24, len(tokens))
    with_marker = tokenizer(f"[D] {text}")["input_ids"]
    signs = [sign for sign in string.punctuation if sign in tokenizer.get_vocab()]
    skipped = sum(token in tokenizer.convert_tokens_to_ids(signs) for token in with_marker)
    assert skipped
    assert len(marked.encode_document([text])[0]) == len(with_marker) - skipped
    assert marked.prompts == {"query": "[Q] ", "document": "[D] "}
    # A marker tells a query from a document that is the same text.
    assert not torch.equal(marked.encode_query([text])[0][0], marked.encode_document([text])[0][0])
    assert len(start(late(document_length=5, **plain), model).model.encode_document([text])[0]) == 5


def test_pooling_halves_the_vectors_of_documents_after_training(model, tmp_path):
    whole, pooled = late(skiplist=()), late(skiplist=(), token_pooling=2)
    retriever = start(pooled, model)
    assert len(retriever.outputs([Row("document", DOCUMENTS[0])])[0]) == len(
        start(whole, model).outputs([Row("document", DOCUMENTS[0])])[0]
    )
    before = len(retriever.model.encode_document([DOCUMENTS[0]])[0])
    retriever.save(tmp_path / "model")
    loaded = pooled.load(tmp_path / "model", Compute())
    after = loaded.model.encode_document([DOCUMENTS[0]])[0]
    assert len(after) == 1 + (before - 1) // 2
    torch.testing.assert_close(after.norm(dim=1), torch.ones(len(after)))
    assert len(loaded.model.encode_query([QUERIES[0]])[0]) > 1


def test_the_seed_decides_the_projection_alone(model):
    source = ModelSource(model=str(model))
    first, second, other = (late().initialise(source, None, seed, Compute()).model[1] for seed in (3, 3, 4))
    assert torch.equal(first.linear.weight, second.linear.weight)
    assert not torch.equal(first.linear.weight, other.linear.weight)
    torch.testing.assert_close(first.linear.weight @ first.linear.weight.T, torch.eye(8), atol=1e-6, rtol=0)


def with_head(model: Path, folder: Path, activation: Any = None, dim: int = 12) -> torch.Tensor:
    """Saves the model with a linear head, as a stage does, and gives the head's weights."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Dense
    from sentence_transformers.sentence_transformer.modules import Normalize

    dense = SentenceTransformer(str(model), device="cpu")
    hidden = dense.get_embedding_dimension()
    head = Dense(hidden, dim, bias=True, activation_function=activation or torch.nn.Identity())
    torch.nn.init.normal_(head.linear.weight, generator=torch.Generator().manual_seed(7), std=3)
    SentenceTransformer(modules=[dense[0], dense[1], head, Normalize()], device="cpu").save(str(folder))
    return head.linear.weight.detach()


def test_the_projection_begins_as_the_head_of_the_dense_student(model, tmp_path):
    weight = with_head(model, tmp_path / "student")
    source = ModelSource(model=str(model))

    def projection(token_dim: int) -> torch.Tensor:
        begun = late(token_dim=token_dim).initialise(source, tmp_path / "student", 3, Compute())
        return begun.model[1].linear.weight.detach()

    # With as many dimensions as the head has, cosines of tokens are those of the head.
    tokens = torch.randn(9, weight.shape[1], generator=torch.Generator().manual_seed(1))
    ours, theirs = (torch.nn.functional.normalize(tokens @ w.T, dim=1) for w in (projection(12), weight))
    torch.testing.assert_close(ours @ ours.T, theirs @ theirs.T)
    # With fewer, no other map to as many is nearer to it.
    rows = projection(8)
    assert rows.shape == (8, weight.shape[1])
    assert rows.norm() == pytest.approx(8**0.5)
    # Processes that train together begin with the same signs.
    assert (rows.gather(1, rows.abs().argmax(dim=1, keepdim=True)) > 0).all()
    values = torch.linalg.svdvals(weight)
    within = weight - weight @ torch.linalg.pinv(rows) @ rows
    assert within.norm() == pytest.approx(float(values[8:].norm()), rel=1e-4)


@pytest.mark.parametrize(("activation", "token_dim"), [(torch.nn.SiLU(), 8), (torch.nn.Identity(), 16)])
def test_a_head_that_is_no_such_map_leaves_the_projection_random(model, tmp_path, activation, token_dim):
    with_head(model, tmp_path / "student", activation)
    begun = late(token_dim=token_dim).initialise(ModelSource(model=str(model)), tmp_path / "student", 3, Compute())
    rows = begun.model[1].linear.weight.detach()
    torch.testing.assert_close(rows @ rows.T, torch.eye(token_dim), atol=1e-6, rtol=0)


def test_what_a_model_cannot_do_is_refused_before_it_is_loaded(model: Path):
    source = ModelSource(model=str(model))
    late().check(source)
    with pytest.raises(RetrieverError, match=r"retriever 'late': texts of 65 tokens are above the 64 positions of"):
        late(document_length=65).check(source)
    with pytest.raises(RetrieverError, match="skiplist has 'zebra', which is not a token of the model"):
        late(skiplist=("zebra",)).check(source)
    with pytest.raises(RetrieverError, match="above the 64 positions"):
        late(start={"model": str(model)}, query_length=100).check(ModelSource(model="./nowhere"))
