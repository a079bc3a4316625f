"""Heads: they turn the encoder's pooled state into vectors of one dimension.

Shapes: B texts, H hidden dimensions of the encoder, D dimensions of a head.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

INNER_FOLDER, OUTER_FOLDER = "2_Dense_", "3_Dense_"
IDENTITY, SILU = "torch.nn.modules.linear.Identity", "torch.nn.modules.activation.SiLU"


class Head(nn.Module):
    """A linear map, or two with SiLU between them.

    Args:
        hidden: Dimensions of the encoder's pooled state.
        dim: Dimensions of the vectors.
        inner: Hidden dimensions of a head of two layers; None for a linear one.
    """

    def __init__(self, hidden: int, dim: int, inner: int | None = None) -> None:
        super().__init__()
        self.inner = nn.Linear(hidden, inner) if inner else None
        self.linear = nn.Linear(inner or hidden, dim)

    def forward(self, pooled_BH: Tensor, dim: int | None = None) -> Tensor:
        """Vectors `[B, dim]`, not yet normalised: the first `dim` dimensions, or all."""
        # Rows are cut before the product, so a prefix head costs what its own dimensions cost.
        return nn.functional.linear(self.state(pooled_BH), self.linear.weight[:dim], self.linear.bias[:dim])

    def state(self, pooled_BH: Tensor) -> Tensor:
        """What the last layer reads: the pooled state, or the inner layer's output of it."""
        return nn.functional.silu(self.inner(pooled_BH)) if self.inner else pooled_BH

    @property
    def dim(self) -> int:
        """Dimensions of its vectors."""
        return self.linear.out_features

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> Head:
        """Weights of unit-variance outputs, zero bias.

        Args:
            generator: On the CPU; several heads share it, so the order of the calls decides their weights.

        Returns:
            The head itself.
        """
        for layer in (self.inner, self.linear):
            if layer is not None:
                shape = layer.weight.shape
                # Drawn on the CPU: generators of other devices give other numbers for the same seed.
                layer.weight.copy_(torch.randn(*shape, generator=generator) / shape[1] ** 0.5)
                layer.bias.zero_()
        return self

    @torch.no_grad()
    def cut(self, rows: slice | Tensor) -> Head:
        """A copy that gives only some dimensions.

        Args:
            rows: Positions of these.
        """
        hidden = (self.inner or self.linear).in_features
        weight_DH, bias_D = self.linear.weight[rows], self.linear.bias[rows]
        head = Head(hidden, len(bias_D), self.inner.out_features if self.inner else None)
        if self.inner is not None and head.inner is not None:
            head.inner.load_state_dict(self.inner.state_dict())
        head.linear.weight.copy_(weight_DH)
        head.linear.bias.copy_(bias_D)
        return head

    @torch.no_grad()
    def start_along(self, full: Head, directions_DD: Tensor, part: Tensor | None = None) -> None:
        """Start as the full head projected to directions, the most important first.

        Dimensions beyond the number of directions stay random, but small: they would blur the similarities.

        Of all projections to d dimensions, the one along the targets' principal directions keeps their inner products
        best, so a Matryoshka head starts close to its target and sends small gradients into the encoder. (How the
        published heads started is not known.)

        Args:
            full: The full head.
            directions_DD: Orthonormal rows, the direction with the largest singular value first.
            part: The rows of the full head that the directions are of; None for all.
        """
        # Both heads then have the same inner state, of which the outer layer is a projection.
        if self.inner is not None and full.inner is not None:
            self.inner.load_state_dict(full.inner.state_dict())
        rows = slice(None) if part is None else part
        # Fewer rows than dimensions where the sample has fewer texts, or the full head fewer dimensions, than this one.
        top_dD = directions_DD[: self.dim].to(full.linear.weight)
        started = len(top_dD)
        self.linear.weight[:started] = top_dD @ full.linear.weight[rows]
        self.linear.bias[:started] = top_dD @ full.linear.bias[rows]
        # As small as the least important direction. Not 0: losses of similarities have no gradient there.
        self.linear.weight[started:] *= self.linear.weight[:started].norm(dim=1).min()

    @torch.no_grad()
    def set(self, weight_DH: Tensor, bias_D: Tensor, part: Tensor | None = None) -> None:
        """Set the linear map, or the rows `part` of it.

        Args:
            weight_DH: Weights, of any number format.
            bias_D: Bias.
            part: Positions of the rows; None for all.
        """
        rows = slice(None) if part is None else part
        self.linear.weight[rows] = weight_DH.to(self.linear.weight)
        self.linear.bias[rows] = bias_D.to(self.linear.bias)

    @torch.no_grad()
    def scale(self, factor: float, part: Tensor) -> None:
        """Make the vectors of the rows `part` longer or shorter; their direction stays.

        Args:
            factor: Above 0.
            part: Positions of the rows.
        """
        self.linear.weight[part] *= factor
        self.linear.bias[part] *= factor

    def modules_of(self, dim: int) -> dict[str, nn.Linear]:
        """Its layers, by their folders in a SentenceTransformers model."""
        if self.inner is None:
            return {f"{INNER_FOLDER}{dim}": self.linear}
        return {f"{INNER_FOLDER}{dim}": self.inner, f"{OUTER_FOLDER}{dim}": self.linear}

    def save(self, folder: Path) -> list[str]:
        """Write the layers as SentenceTransformers' Dense modules; returns the names of their folders in order."""
        layers = self.modules_of(self.dim)
        for name, layer in layers.items():
            inner = layer is self.inner
            config = {
                "in_features": layer.in_features,
                "out_features": layer.out_features,
                "bias": True,
                "activation_function": SILU if inner else IDENTITY,
            }
            (folder / name).mkdir(parents=True, exist_ok=True)
            (folder / name / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
            # `Dense` calls its layer `linear`, and safetensors refuses views that are not contiguous.
            tensors = {f"linear.{key}": value.detach().cpu().contiguous() for key, value in layer.state_dict().items()}
            save_file(tensors, folder / name / "model.safetensors")
        return list(layers)

    @classmethod
    def load(cls, folder: Path, dim: int) -> Head:
        """Read the head of `dim` dimensions from a model's folder.

        Args:
            folder: In the layout of SentenceTransformers.
            dim: Dimensions of the head.
        """
        # Folders carry the dimension of the head, also that of an inner layer, whose own width is in its config.
        paths = [path for prefix in (INNER_FOLDER, OUTER_FOLDER) if (path := folder / f"{prefix}{dim}").is_dir()]
        configs: list[dict[str, Any]] = [json.loads((path / "config.json").read_text()) for path in paths]
        head = cls(configs[0]["in_features"], dim, configs[0]["out_features"] if len(paths) == 2 else None)
        for path, layer in zip(paths, head.modules_of(dim).values(), strict=True):
            tensors = load_file(path / "model.safetensors")
            layer.load_state_dict({key.removeprefix("linear."): value for key, value in tensors.items()})
        return head


def saved_dimensions(folder: Path) -> list[int]:
    """Dimensions of the heads in a model's folder, the largest first."""
    return sorted((int(path.name.removeprefix(INNER_FOLDER)) for path in folder.glob(f"{INNER_FOLDER}*")), reverse=True)
