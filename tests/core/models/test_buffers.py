"""Buffers that no checkpoint holds get the value that the class computes, whatever it needs for that."""

import copy
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import BertConfig, PreTrainedModel

from stella_assets.core.errors import UserError
from stella_assets.core.models.buffers import restore_buffers


class Table(nn.Module):
    """Computes in `__init__` what the parameters do not hold."""

    def __init__(self, dtype: torch.dtype):
        super().__init__()
        self.register_buffer("cached", (torch.arange(8).float() / 3).to(dtype), persistent=False)
        self.plain = torch.arange(5).float() / 7
        self.pair = [torch.arange(3.0), (torch.ones(2), "name")]
        self.by_name = {"cos": torch.arange(4).float().cos()}


class Small(PreTrainedModel):
    config_class = BertConfig

    def __init__(self, config: BertConfig, scale: float = 1.0):
        super().__init__(config)
        self.linear = nn.Linear(config.hidden_size, config.hidden_size)
        self.table = Table(torch.get_default_dtype())
        self.register_buffer("scale", torch.tensor([scale]), persistent=False)
        self.post_init()


class Random(Small):
    def __init__(self, config: BertConfig):
        super().__init__(config)
        self.register_buffer("noise", torch.randn(4), persistent=False)


class Writing(Small):
    """Writes into its configuration, so that constructing it again makes another model."""

    def __init__(self, config: BertConfig):
        config.layer_norm_eps *= 2
        super().__init__(config)
        self.register_buffer("eps", torch.tensor([config.layer_norm_eps]), persistent=False)


class WritingIntoACopy(Writing):
    def __init__(self, config: BertConfig):
        super().__init__(copy.deepcopy(config))


class OfWeights(Small):
    """Needs a parameter's data in `__init__`."""

    def __init__(self, config: BertConfig):
        super().__init__(config)
        nn.init.ones_(self.linear.weight)
        self.register_buffer("total", torch.tensor([self.linear.weight.sum().item()]), persistent=False)


@pytest.fixture
def config() -> BertConfig:
    return BertConfig(hidden_size=8)


def loaded(kind: type[PreTrainedModel], folder: Path, **arguments: object) -> PreTrainedModel:
    kind(BertConfig(hidden_size=8)).save_pretrained(str(folder))
    return kind.from_pretrained(str(folder), **arguments)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_buffers_and_plain_tensors_are_restored_in_the_format_of_the_class(dtype: torch.dtype, tmp_path: Path):
    model = loaded(Small, tmp_path, dtype=dtype)
    assert model.table.plain.is_meta  # what transformers leaves of a tensor that is not registered
    before = torch.random.get_rng_state()
    assert {"table.plain", "table.pair", "table.by_name"} <= set(restore_buffers(model, {}))
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.equal(model.table.cached, (torch.arange(8).float() / 3).to(dtype))
    assert torch.equal(model.table.plain, torch.arange(5).float() / 7)
    (first, (second, name)), cos = model.table.pair, model.table.by_name["cos"]
    assert (first.tolist(), second.tolist(), name) == ([0, 1, 2], [1, 1], "name")
    assert torch.equal(cos, torch.arange(4).float().cos())
    assert model.linear.weight.dtype == dtype
    assert restore_buffers(model, {}) == []


def test_arguments_of_the_class_decide_its_buffers_too(tmp_path: Path):
    model = loaded(Small, tmp_path, scale=3.0)
    restore_buffers(model, {"scale": 3.0})
    assert model.scale.tolist() == [3.0]


def test_a_buffer_that_is_random_each_time_is_refused(tmp_path: Path):
    model = loaded(Random, tmp_path)
    with pytest.raises(UserError, match=r"noise of Random is not in the checkpoint, and .* another value each time"):
        restore_buffers(model, {})


@pytest.mark.parametrize("kind", [Writing, WritingIntoACopy])
def test_a_class_that_changes_its_configuration_each_time_is_refused(kind: type[Writing], tmp_path: Path):
    model = loaded(kind, tmp_path)
    before = model.config.layer_norm_eps
    with pytest.raises(UserError, match=r"changes its configuration each time \(layer_norm_eps\)"):
        restore_buffers(model, {})
    assert model.config.layer_norm_eps == before


def test_a_class_that_reads_its_weights_is_constructed_with_them(tmp_path: Path, config: BertConfig):
    OfWeights(config).save_pretrained(str(tmp_path))
    model = OfWeights(config)
    model.total = torch.zeros(1)
    assert restore_buffers(model, {}) == ["total"]
    assert model.total.tolist() == [64.0]


def test_a_large_model_is_constructed_without_memory_for_its_weights(config: BertConfig):
    import resource

    wide = BertConfig(hidden_size=20_000)
    with torch.device("meta"):
        model = Small(wide)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    model.table.cached = torch.zeros(8)
    assert "table.cached" in restore_buffers(model, {})
    # 1.6 GB of weights, of which none is written.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000
