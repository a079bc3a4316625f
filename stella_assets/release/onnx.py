"""The release as ONNX: encoder, pooling, head and normalisation in one graph, in float32 and with int8 weights.

Shapes: B texts, W tokens of a padded row, H hidden dimensions of the encoder, D dimensions of the head.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from stella_assets.core.quiet import errors_only
from stella_assets.students.dense.model import DenseStudent

FOLDER = "onnx"
INPUTS = ("input_ids", "attention_mask")
OUTPUT = "sentence_embedding"
# The opset that the dynamo exporter writes itself: no conversion between versions changes the graph.
OPSET = 18
STACK_TRACE = "pkg.torch.onnx.stack_trace"
"""What the exporter notes of each node: paths of this machine, which are not part of a model."""
LARGEST_PROTOBUF = 2**31 - 2**24
"""Bytes that fit into one file; a larger model's weights are in a file next to it."""
EXAMPLE = ("An example of a sentence to trace the model with.", "Another one.")


class WholeModel(nn.Module):
    """From tokens to unit vectors."""

    def __init__(self, student: DenseStudent, dim: int) -> None:
        super().__init__()
        self.transformer = student.transformer
        # Pooling and normalisation are in the graph, so that users need a tokenizer and ONNX Runtime only.
        self.pooling = student.backbone[1]
        self.head = student.weights(student.head_of(dim))

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Unit vectors `[B, D]` of tokens `[B, W]`."""
        states_BWH = self.transformer(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        features = {"token_embeddings": states_BWH, "attention_mask": attention_mask}
        return normalize(self.head(self.pooling(features)["sentence_embedding"]), dim=1)


def float_file(dim: int) -> str:
    """Path of the float32 graph of a head in a release."""
    return f"{FOLDER}/model_{dim}.onnx"


def int8_file(dim: int) -> str:
    """Path of the graph with int8 weights of a head in a release."""
    return f"{FOLDER}/model_{dim}_int8.onnx"


def export_onnx(student: DenseStudent, dim: int, folder: Path) -> None:
    """Write a head with its encoder as ONNX into a release's folder, in float32 and with int8 weights.

    int8 is dynamic: weights have one scale per output channel, activations are quantised when they are computed. One
    scale per matrix loses several times as much. Weights are unsigned: on processors without VNNI, products with signed
    ones overflow 16 bits without an error, and the vectors are wrong there (cosine 0.7, not 0.99).

    Args:
        student: In float32.
        dim: Dimension of the head.
        folder: The release's.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    (folder / FOLDER).mkdir(exist_ok=True)
    device = student.device
    # The modules are the student's own, so this moves it; it is moved back at the end.
    whole = WholeModel(student, dim).eval().to("cpu", torch.float32)
    features = student.backbone.tokenizer(list(EXAMPLE), padding=True, return_tensors="pt")
    size = sum(p.numel() * p.element_size() for p in whole.parameters())
    # Else the graph would only take the example's number of texts and tokens.
    axes = {name: {0: "texts", 1: "tokens"} for name in INPUTS}
    with torch.inference_mode(), _quiet():
        program = torch.onnx.export(
            whole,
            tuple(features[name] for name in INPUTS),
            dynamo=True,
            input_names=list(INPUTS),
            output_names=[OUTPUT],
            dynamic_shapes=axes,
            opset_version=OPSET,
            verbose=False,
        )
    assert program is not None, "the exporter returns the program where it writes no file"
    for node in program.model.graph:
        # The release is hashed: equal models must give equal files on every machine.
        node.metadata_props.pop(STACK_TRACE, None)
    program.save(folder / float_file(dim), external_data=size > LARGEST_PROTOBUF)
    with tempfile.TemporaryDirectory() as scratch:
        graph = onnx.load(folder / float_file(dim))
        del graph.graph.value_info[:]  # the exporter's shapes of transposed weights differ from those that onnx infers
        plain = Path(scratch) / "model.onnx"
        onnx.save(graph, plain, save_as_external_data=size > LARGEST_PROTOBUF)
        with _quiet():
            quantize_dynamic(
                plain,
                folder / int8_file(dim),
                per_channel=True,
                weight_type=QuantType.QUInt8,
                use_external_data_format=size > LARGEST_PROTOBUF,
            )
    student.to(device)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence advice that is meant for authors of exporters."""
    with errors_only("", "torch.onnx", "onnxscript", "onnx_ir"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
