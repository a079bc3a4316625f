"""The release as ONNX: encoder, pooling, head and normalisation in one graph, in float32 and with int8 weights.

Shapes: B texts, W tokens of a padded row, H hidden dimensions of the encoder, D dimensions of the head.
"""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from stella_assets.students.dense import Student

FOLDER = "onnx"
INPUTS = ("input_ids", "attention_mask")
OUTPUT = "sentence_embedding"
OPSET = 18
LARGEST_PROTOBUF = 2**31 - 2**24
"""Bytes that fit into one file; a larger model's weights lie beside it."""
EXAMPLE = ("An example of a sentence to trace the model with.", "Another one.")


class WholeModel(nn.Module):
    """From tokens to unit vectors."""

    def __init__(self, student: Student, dim: int) -> None:
        super().__init__()
        self.transformer = student.transformer
        self.pooling = student.backbone[1]
        self.head = student.head(dim).first(dim)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Unit vectors `[B, D]` of tokens `[B, W]`."""
        states_BWH = self.transformer(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        features = {"token_embeddings": states_BWH, "attention_mask": attention_mask}
        return normalize(self.head(self.pooling(features)["sentence_embedding"]), dim=1)


def float_file(dim: int) -> str:
    """Where the float32 graph of a head lies in a release."""
    return f"{FOLDER}/model_{dim}.onnx"


def int8_file(dim: int) -> str:
    """Where the graph with int8 weights of a head lies in a release."""
    return f"{FOLDER}/model_{dim}_int8.onnx"


def export_onnx(student: Student, dim: int, folder: Path) -> None:
    """Write a head with its encoder as ONNX into a release's folder, in float32 and with int8 weights.

    int8 is dynamic: weights are kept a scale per output channel, activations are quantised as they come. One scale a
    matrix loses several times as much. Weights are without a sign: products with signed ones overflow 16 bits on
    processors without VNNI, unnoticed, and the vectors there are others (cosine 0.7, not 0.99).
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    (folder / FOLDER).mkdir(exist_ok=True)
    device = student.device
    whole = WholeModel(student, dim).eval().to("cpu", torch.float32)
    features = student.backbone.tokenizer(list(EXAMPLE), padding=True, return_tensors="pt")
    size = sum(p.numel() * p.element_size() for p in whole.parameters())
    axes = {name: {0: "texts", 1: "tokens"} for name in INPUTS}
    with torch.inference_mode(), _quiet():
        torch.onnx.export(
            whole,
            tuple(features[name] for name in INPUTS),
            folder / float_file(dim),
            dynamo=True,
            input_names=list(INPUTS),
            output_names=[OUTPUT],
            dynamic_shapes=axes,
            opset_version=OPSET,
            external_data=size > LARGEST_PROTOBUF,
            verbose=False,
        )
    with tempfile.TemporaryDirectory() as scratch:
        graph = onnx.load(folder / float_file(dim))
        del graph.graph.value_info[:]  # the exporter's shapes of transposed weights are not those that onnx infers
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
    """Without advice that is for authors of exporters."""
    loggers = [logging.getLogger(name) for name in ("", "torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
