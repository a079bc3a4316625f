"""Buffers that no checkpoint holds: they must be what the model's class computes.

transformers constructs a model without data and fills in what the checkpoint has. A buffer that `__init__` computes and
that is not saved, e.g. a table of rotary positions, then holds whatever was in memory, unless its class computes it
again; code that comes with a model rarely does. A tensor that is a plain attribute, or in a list or mapping that is
one, is left without data.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only

from stella_assets.core.errors import UserError

OF_MODULES = {"_parameters", "_buffers", "_modules"}
"""Attributes in which torch itself keeps the parts of a module."""
FULL_CONSTRUCTION = 2 * 10**9
"""Parameters of the largest model that is constructed with all its data, where its class cannot do without."""


class UnknownBufferError(UserError):
    """A buffer whose value is not known."""


def restore_buffers(model: Any, arguments: Mapping[str, Any], missing: frozenset[str] = frozenset()) -> list[str]:
    """Give every buffer that is not saved the value that the class computes when it is constructed normally.

    Args:
        model: Of transformers, just loaded; changed in place.
        arguments: Of its class, in addition to the configuration.
        missing: Buffers that the checkpoint lacks although they are saved.

    Returns:
        Names of those that had another value.

    Raises:
        UnknownBufferError: The class does not compute them, or computes other values each time.
    """
    wanted = [name for name, _, _ in _computed(model, missing)]
    if not wanted:
        return []
    made = _construct(model, arguments)
    right = dict(_values(made, missing))
    if absent := [name for name in wanted if name not in right]:
        raise _unknown(model, absent[0], "it is not there when the class is constructed normally")
    changed = [name for name, _, value in _computed(model, missing) if not _same(value, right[name])]
    if not changed:
        return []
    # What is constructed of a changed configuration is not what the first one gave.
    before, after = model.config.to_dict(), made.config.to_dict()
    if keys := sorted(key for key in before.keys() | after.keys() if before.get(key) != after.get(key)):
        raise _unknown(model, changed[0], f"the class changes its configuration each time ({keys[0]})")
    again = dict(_values(_construct(model, arguments), missing))
    if random := [name for name in changed if not _same(right[name], again[name])]:
        raise _unknown(model, random[0], "the class computes another value each time")
    for name, module, value in list(_computed(model, missing)):
        if name in changed:
            # The model's own device: a value on no device tells none.
            device = model.device if (first := _tensors(value)[0]).is_meta else first.device
            setattr(module, name.rpartition(".")[2], tree_map_only(Tensor, _mover(device), right[name]))
    return changed


def _mover(device: torch.device) -> Any:
    return lambda tensor: tensor.to(device)


def _computed(model: nn.Module, missing: frozenset[str]) -> Iterator[tuple[str, nn.Module, Any]]:
    """Name, module and value of all that no checkpoint gives: buffers, and plain attributes with tensors in them."""
    for prefix, module in model.named_modules():
        start = f"{prefix}." if prefix else ""
        for name, buffer in module.named_buffers(recurse=False):
            if name in module._non_persistent_buffers_set or start + name in missing:
                yield start + name, module, buffer
        for name, value in vars(module).items():
            if name not in OF_MODULES and _tensors(value):
                yield start + name, module, value


def _values(model: nn.Module, missing: frozenset[str]) -> Iterator[tuple[str, Any]]:
    for name, _, value in _computed(model, missing):
        yield name, value


def _tensors(value: Any) -> list[Tensor]:
    """A tensor, or those in a list, tuple or mapping; no parameters, which a checkpoint gives."""
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor) and not isinstance(leaf, nn.Parameter)]


def _construct(model: Any, arguments: Mapping[str, Any]) -> Any:
    """The model as its class makes it: buffers with data, and parameters without where the class can do so.

    Raises:
        UnknownBufferError: It cannot, and the model is too large to be constructed twice.
    """
    from accelerate import init_empty_weights

    def make() -> Any:
        with _default_dtype(model.dtype), torch.random.fork_rng(devices=[]):
            # Another seed each time, so that random values show.
            torch.random.seed()
            # A copy: a class may write into its configuration.
            return type(model)(copy.deepcopy(model.config), **arguments)

    try:
        with init_empty_weights(include_buffers=False):
            return make()
    except RuntimeError as error:  # it reads a parameter, which has no data here
        if (size := sum(p.numel() for p in model.parameters())) > FULL_CONSTRUCTION:
            raise _unknown(
                model, "its buffers", f"the class needs its {size:,} weights to compute them ({error})"
            ) from None
        return make()


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """As while a model is loaded: tables of positions may be cast to the default number format."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _same(a: Any, b: Any) -> bool:
    ours, theirs = _tensors(a), _tensors(b)
    return len(ours) == len(theirs) and all(map(_equal, ours, theirs))


def _equal(a: Tensor, b: Tensor) -> bool:
    if a.is_meta or b.is_meta or a.shape != b.shape or a.dtype != b.dtype:
        return False
    return torch.equal(a.cpu(), b.cpu())


def _unknown(model: Any, name: str, reason: str) -> UnknownBufferError:
    return UnknownBufferError(
        f"{model.config.name_or_path}: {name} of {type(model).__name__} is not in the checkpoint, and {reason}.",
        "Change the code that comes with the model, or save this buffer with the weights.",
    )
