"""The padded encoder as an ONNX graph for GPUs: INT32 [batch, tokens] in, unit vectors out (embedding/format.py).

TensorRT 11 knows only strongly typed networks, so the graph itself says what is FP16: weights, products with weights and
attention's own. Word sums, layer normalisation, the residual stream, softmax, pooling and normalisation are FP32: their sums
over hundreds of values and their outlier channels are what FP16 is too coarse or too narrow for.
No shape depends on data. Positions and MPNet's bias are slices of constants: padding is on the right.
"""

from typing import Final, Literal

import numpy as np
import onnx
from onnx import TensorProto

from tritonrag_backends.embedding.session import Float32Array
from tritonrag_export.embedder.bert import position_table
from tritonrag_export.embedder.graph import GraphBuilder, activate
from tritonrag_export.embedder.relative import bias_by_places
from tritonrag_export.embedder.source import SourceModel

_OPSET: Final = (
    20  # the newest that both TensorRT 10 and ONNX Runtime's CUDA kernels cover; has Gelu and LayerNormalization
)
# Added to the scores of padding, in FP32. exp of it is exactly 0.
_MASKED: Final = -10_000.0
_LEAST_LENGTH: Final = 1e-12  # a row that is all padding becomes zeros, not NaN
_GRID: Final = ["batch", "tokens"]


def build_padded(source: SourceModel, *, products: Literal["fp16", "fp32"] = "fp16") -> onnx.ModelProto:
    """The model's padded graph; `products` "fp32" is the same graph without rounding, for tests."""
    return _PaddedGraph(source, products).build()


class _PaddedGraph:
    def __init__(self, source: SourceModel, products: Literal["fp16", "fp32"]) -> None:
        self._graph = GraphBuilder()
        self._source = source
        self._config = source.config
        self._is_half = products == "fp16"

    def build(self) -> onnx.ModelProto:
        g = self._graph
        self._mask = g.apply("Cast", "attention_mask", to=TensorProto.FLOAT)
        self._tokens = g.apply("Gather", g.apply("Shape", "input_ids"), g.ints(1))
        hidden, bias = self._embeddings(), self._attention_bias()
        for number in range(self._config.layers):
            hidden = self._layer(f"encoder.layer.{number}", hidden, bias)
        output = self._pooled(hidden)
        return g.model(
            inputs={"input_ids": _GRID, "attention_mask": _GRID},
            output=output,
            output_shape=["batch", self._config.hidden_size],
            opset=_OPSET,
            input_type=TensorProto.INT32,
        )

    def _to_half(self, tensor: str) -> str:
        return self._graph.apply("Cast", tensor, to=TensorProto.FLOAT16) if self._is_half else tensor

    def _to_float(self, tensor: str) -> str:
        return self._graph.apply("Cast", tensor, to=TensorProto.FLOAT) if self._is_half else tensor

    def _weight(self, name: str, value: Float32Array) -> str:
        with np.errstate(over="ignore"):  # a weight that FP16 can't hold becomes infinite, which the parity check finds
            return self._graph.constant(name, value, np.float16 if self._is_half else np.float32)

    def _first_places(self, constant: str, *axes: int) -> str:
        """As many places of a constant over all positions as the texts have tokens."""
        g, places = self._graph, len(axes)
        ends = g.apply("Concat", *[self._tokens] * places, axis=0) if places > 1 else self._tokens
        return g.apply("Slice", constant, g.ints(*[0] * places), ends, g.ints(*axes))

    def _embeddings(self) -> str:
        """FP32 [batch, tokens, hidden]."""
        g = self._graph
        name = "embeddings.word_embeddings.weight"
        words = self._to_float(g.apply("Gather", self._weight(name, self._source.weights[name]), "input_ids"))
        positions = self._first_places(g.constant("embeddings.position_and_type", position_table(self._source)), 0)
        return self._norm("embeddings.LayerNorm", g.apply("Add", words, positions))

    def _attention_bias(self) -> str:
        """FP32 [batch, 1 or heads, 1 or tokens, tokens]: `_MASKED` for padding, and MPNet's bias."""
        g = self._graph
        padding = g.apply("Sub", g.constant("one", 1.0), self._mask)
        bias = g.apply("Unsqueeze", g.apply("Mul", padding, g.constant("masked", _MASKED)), g.ints(1, 2))
        if not self._config.relative_buckets:
            return bias
        return g.apply(
            "Add", bias, self._first_places(g.constant("bias_by_places", bias_by_places(self._source)), 2, 3)
        )

    def _layer(self, name: str, hidden: str, bias: str) -> str:
        g = self._graph
        mixed = self._attention(f"{name}.attention.self", self._to_half(hidden), bias)
        attended = self._to_float(self._dense(f"{name}.attention.output.dense", mixed))
        hidden = self._norm(f"{name}.attention.output.LayerNorm", g.apply("Add", attended, hidden))
        wide = self._activated(self._dense(f"{name}.intermediate.dense", self._to_half(hidden)))
        narrow = self._to_float(self._dense(f"{name}.output.dense", wide))
        return self._norm(f"{name}.output.LayerNorm", g.apply("Add", narrow, hidden))

    def _activated(self, wide: str) -> str:
        if self._config.activation != "gelu_tanh":
            return activate(self._graph, self._config.activation, wide)
        # The cube in it leaves FP16's range at 40.
        return self._to_half(activate(self._graph, "gelu_tanh", self._to_float(wide)))

    def _dense(self, name: str, tensor: str, *, scale: float = 1.0) -> str:
        """X W^T + b, times `scale`."""
        g, weights = self._graph, self._source.weights
        weight = self._weight(f"{name}.weight", weights[f"{name}.weight"].T * np.float32(scale))
        bias = self._weight(f"{name}.bias", weights[f"{name}.bias"] * np.float32(scale))
        return g.apply("Add", g.apply("MatMul", tensor, weight), bias)

    def _attention(self, name: str, tensor: str, bias: str) -> str:
        """softmax(Q K^T / sqrt(d) + bias) V, head by head; Q comes scaled, so that its products stay small."""
        g, config = self._graph, self._config
        split, joined = g.ints(0, 0, config.heads, config.head_size), g.ints(0, 0, config.hidden_size)

        def heads(part: str, order: list[int], scale: float = 1.0) -> str:
            dense = self._dense(f"{name}.{part}", tensor, scale=scale)
            return g.apply("Transpose", g.apply("Reshape", dense, split), perm=order)

        query = heads("query", [0, 2, 1, 3], config.head_size**-0.5)
        scores = self._to_float(g.apply("MatMul", query, heads("key", [0, 2, 3, 1])))
        weights = self._to_half(g.apply("Softmax", g.apply("Add", scores, bias), axis=-1))
        mixed = g.apply("MatMul", weights, heads("value", [0, 2, 1, 3]))
        return g.apply("Reshape", g.apply("Transpose", mixed, perm=[0, 2, 1, 3]), joined)

    def _norm(self, name: str, hidden: str) -> str:
        """Layer normalisation over the last axis, in FP32."""
        g, weights = self._graph, self._source.weights
        gain, bias = (g.constant(f"{name}.{kind}", weights[f"{name}.{kind}"]) for kind in ("weight", "bias"))
        return g.apply("LayerNormalization", hidden, gain, bias, axis=-1, epsilon=self._config.norm_epsilon)

    def _pooled(self, hidden: str) -> str:
        """FP32 [batch, hidden], unit length. The mean's division falls away in the normalisation."""
        g = self._graph
        pooled = g.apply("Mul", hidden, g.apply("Unsqueeze", self._pooled_places(), g.ints(2)))
        total = g.apply("ReduceSum", pooled, g.ints(1), keepdims=0)
        length = g.apply("ReduceL2", total, g.ints(1))
        return g.apply(
            "Div", total, g.apply("Max", length, g.constant("least_length", _LEAST_LENGTH)), output="embedding"
        )

    def _pooled_places(self) -> str:
        """FP32 [batch, tokens]: 1 where a token is pooled."""
        g, pooling = self._graph, self._source.pooling
        if pooling == "mean":
            return self._mask
        places = self._first_places(g.constant("places", np.arange(self._config.max_positions)), 0)
        if pooling == "cls":
            wanted = g.constant("first_place", [0.0])
        else:
            count = g.apply("ReduceSum", self._mask, g.ints(1))
            wanted = g.apply("Sub", count, g.constant("one", 1.0))
        chosen = g.apply("Cast", g.apply("Equal", places, wanted), to=TensorProto.FLOAT)
        return g.apply("Mul", chosen, self._mask)
