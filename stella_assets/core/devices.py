"""Which device and number format to compute with."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal


def best_device() -> Any:
    """CUDA, Apple's GPU, or the CPU."""
    import torch

    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def resolve_dtype(dtype: Literal["auto", "float32", "bfloat16"]) -> Literal["float32", "bfloat16"]:
    """`auto` is bfloat16 where the processor computes in it, else float32."""
    import torch

    if dtype != "auto":
        return dtype
    match best_device().type:
        case "cuda":
            fast = torch.cuda.is_bf16_supported(including_emulation=False)
        case "cpu":
            fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
        case _:
            fast = False
    return "bfloat16" if fast else "float32"


def autocast(dtype: Literal["float32", "bfloat16"]) -> AbstractContextManager[Any]:
    """Matrix products in bfloat16, or nothing."""
    import torch

    if dtype == "float32":
        return nullcontext()
    return torch.autocast(best_device().type, dtype=torch.bfloat16)


def processes() -> Any:
    """The processes that a launcher started for this work (accelerate's `PartialState`); one, where none did."""
    from accelerate import PartialState

    return PartialState(cpu=best_device().type == "cpu")
