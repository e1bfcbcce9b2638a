"""The packed encoder as an ONNX graph: Devlin et al. 2018 and its kin (families.py), pooling and L2 normalisation included.

Inputs and output are listed in tritonrag_backends/embedding/format.py. Texts share rows; a token attends to the tokens that
have its text id, so the mask is block-diagonal. Places that no text fills have text id 0: they attend to each other and are
pooled nowhere.

Two dialects of the same function:

`portable` (opset 20) keeps to operators that TensorRT's ONNX parser knows, and computes every place of the grid.
`cpu` (opset 23) writes what ONNX Runtime 1.31 runs fastest on one thread (figures: docs/benchmarks/embedder.md):
  everything but attention computes the tokens alone, without the places that no text fills (filled_places.py);
  residuals are added by Sum: after Add, LayerNormalization would be fused to SkipLayerNormalization, whose scalar loop takes
  seven times as long; attention is the Attention operator.
Tried and no faster: one merged query-key-value product, com.microsoft.MultiHeadAttention, attention spelled out, layer
normalisation spelled out, the tanh form of GELU.
"""

from collections.abc import Mapping
from typing import Literal

import numpy as np
import onnx

from tritonrag_backends.embedding.session import Float32Array
from tritonrag_export.embedder.filled_places import FilledPlaces
from tritonrag_export.embedder.graph import GraphBuilder, activate
from tritonrag_export.embedder.relative import bias_by_distance
from tritonrag_export.embedder.source import SourceModel

Dialect = Literal["portable", "cpu"]

_OPSETS: dict[Dialect, int] = {"portable": 20, "cpu": 23}
# Added to the attention scores of other texts' tokens. exp of it is exactly 0 in FP32, and it is finite in FP16.
_MASKED = -10_000.0
_GRID = ["rows", "row_tokens"]


def build_bert(
    source: SourceModel, *, dialect: Dialect, factors: Mapping[str, Float32Array] | None = None
) -> onnx.ModelProto:
    """The model's graph with its FP32 weights; with `factors` (embedder/smoothing.py) the same function, prepared for int8."""
    return _BertGraph(source, dialect, factors or {}).build()


class _BertGraph:
    def __init__(self, source: SourceModel, dialect: Dialect, factors: Mapping[str, Float32Array]) -> None:
        self._graph = GraphBuilder()
        self._source = source
        self._config = source.config
        self._dialect = dialect
        self._factors = factors
        self._filled = FilledPlaces(self._graph) if dialect == "cpu" else None

    def build(self) -> onnx.ModelProto:
        mask = self._mask()
        tokens = self._embeddings()
        for number in range(self._config.layers):
            tokens = self._layer(f"encoder.layer.{number}", tokens, mask)
        output = self._pooled(tokens)
        inputs = {"input_ids": _GRID, "position_ids": _GRID, "text_ids": _GRID, "text_index": ["texts"]}
        shape: list[str | int] = ["texts", self._config.hidden_size]
        return self._graph.model(inputs=inputs, output=output, output_shape=shape, opset=_OPSETS[self._dialect])

    def _mask(self) -> str:
        """FP32 [rows, 1 or heads, row_tokens, row_tokens]: 0 or the bias inside a text, about `_MASKED` between texts."""
        g = self._graph
        of_query, of_key = (g.apply("Unsqueeze", "text_ids", g.ints(1, axis)) for axis in (3, 2))
        same = g.apply("Equal", of_query, of_key)
        mask = g.apply("Where", same, g.constant("zero", 0.0), g.constant("masked", _MASKED))
        return g.apply("Add", mask, self._relative_bias()) if self._config.relative_buckets else mask

    def _relative_bias(self) -> str:
        """FP32 [rows, heads, row_tokens, row_tokens], looked up by how far a key stands behind its query."""
        g = self._graph
        of_query, of_key = (g.apply("Unsqueeze", "position_ids", g.ints(axis)) for axis in (2, 1))
        nearest = g.constant("distance_zero", self._config.max_positions - 1, np.int64)
        distance = g.apply("Add", g.apply("Sub", of_key, of_query), nearest)
        bias = g.apply("Gather", g.constant("bias_by_distance", bias_by_distance(self._source)), distance)
        return g.apply("Transpose", bias, perm=[0, 3, 1, 2])

    def _embeddings(self) -> str:
        """FP32 [tokens, hidden], or of each place: word plus position plus the one token type that single texts have."""
        g = self._graph
        words = g.constant(
            "embeddings.word_embeddings.weight", self._source.weights["embeddings.word_embeddings.weight"]
        )
        positions = g.constant("embeddings.position_and_type", position_table(self._source))
        ids, places = self._of_tokens("input_ids"), self._of_tokens("position_ids")
        total = self._plus(g.apply("Gather", words, ids), g.apply("Gather", positions, places))
        return self._norm("embeddings.LayerNorm", total)

    def _layer(self, name: str, tokens: str, mask: str) -> str:
        g = self._graph
        attended = self._attention(f"{name}.attention.self", tokens, mask)
        attended = self._dense(f"{name}.attention.output.dense", attended)
        tokens = self._norm(f"{name}.attention.output.LayerNorm", self._plus(attended, tokens))
        wide = self._dense(f"{name}.intermediate.dense", self._smooth(f"{name}.intermediate.dense", tokens))
        narrow = self._dense(f"{name}.output.dense", activate(g, self._config.activation, wide))
        return self._norm(f"{name}.output.LayerNorm", self._plus(narrow, tokens))

    def _of_tokens(self, tensor: str) -> str:
        """Of INT64 [rows, row_tokens] what belongs to the tokens, INT64 [tokens]; all of it where all places are computed."""
        return tensor if self._filled is None else self._filled.of_tokens(tensor)

    def _plus(self, one: str, other: str) -> str:
        return self._graph.apply("Add" if self._filled is None else "Sum", one, other)

    def _dense(self, name: str, tokens: str) -> str:
        """X W^T + b, of an input that has been through `_smooth`."""
        g, weights = self._graph, self._source.weights
        weight = weights[f"{name}.weight"] * self._factors.get(name, np.float32(1))
        product = g.apply("MatMul", tokens, g.constant(f"{name}.weight", weight.T))
        return g.apply("Add", product, g.constant(f"{name}.bias", weights[f"{name}.bias"]))

    def _smooth(self, name: str, tokens: str) -> str:
        """The input of the dense layer `name`, each channel divided by its factor."""
        if name not in self._factors:
            return tokens
        return self._graph.apply("Mul", tokens, self._graph.constant(f"{name}.smoothing", 1 / self._factors[name]))

    def _attention(self, name: str, tokens: str, mask: str) -> str:
        tokens = self._smooth(f"{name}.query", tokens)  # one input, so one set of factors, for all three
        query, key, value = (self._dense(f"{name}.{part}", tokens) for part in ("query", "key", "value"))
        if self._filled is None:
            return self._plain_attention(query, key, value, mask)
        heads, in_rows = self._config.heads, [self._filled.in_rows(part) for part in (query, key, value)]
        attended = self._graph.apply("Attention", *in_rows, mask, q_num_heads=heads, kv_num_heads=heads)
        return self._filled.out_of_rows(attended, self._config.hidden_size)

    def _plain_attention(self, query: str, key: str, value: str, mask: str) -> str:
        """softmax(Q K^T / sqrt(d) + mask) V, head by head."""
        g, config = self._graph, self._config
        split, joined = g.ints(0, 0, config.heads, config.head_size), g.ints(0, 0, config.hidden_size)

        def heads(tensor: str, order: list[int]) -> str:
            return g.apply("Transpose", g.apply("Reshape", tensor, split), perm=order)

        scores = g.apply("MatMul", heads(query, [0, 2, 1, 3]), heads(key, [0, 2, 3, 1]))
        scaled = g.apply("Mul", scores, g.constant("attention_scale", config.head_size**-0.5))
        weights = g.apply("Softmax", g.apply("Add", scaled, mask), axis=-1)
        mixed = g.apply("MatMul", weights, heads(value, [0, 2, 1, 3]))
        return g.apply("Reshape", g.apply("Transpose", mixed, perm=[0, 2, 1, 3]), joined)

    def _norm(self, name: str, tokens: str) -> str:
        """Layer normalisation over the last axis (Ba et al. 2016)."""
        g, weights = self._graph, self._source.weights
        gain, bias = (g.constant(f"{name}.{kind}", weights[f"{name}.{kind}"]) for kind in ("weight", "bias"))
        return g.apply("LayerNormalization", tokens, gain, bias, axis=-1, epsilon=self._config.norm_epsilon)

    def _pooled(self, tokens: str) -> str:
        """FP32 [texts, hidden]: the sum over each text's pooled tokens, divided by its own length.

        The mean needs no division by the number of tokens: a positive factor vanishes in the normalisation.
        """
        g = self._graph
        flat = g.apply("Reshape", tokens, g.ints(-1, self._config.hidden_size))
        text_of_place = g.apply("Reshape", self._of_tokens("text_ids"), g.ints(1, -1))
        member = g.apply("Equal", g.apply("Unsqueeze", "text_index", g.ints(1)), text_of_place)
        if self._source.pooling == "cls":
            zero = g.constant("position_zero", 0, np.int64)
            positions = g.apply("Reshape", self._of_tokens("position_ids"), g.ints(1, -1))
            member = g.apply("And", member, g.apply("Equal", positions, zero))
        elif self._source.pooling == "last":
            member = g.apply("And", member, self._is_last(text_of_place))
        total = g.apply("MatMul", g.apply("Cast", member, to=onnx.TensorProto.FLOAT), flat)
        length = g.apply("ReduceL2", total, g.ints(1))
        return g.apply("Div", total, length, output="embedding")

    def _is_last(self, text_of_place: str) -> str:
        """BOOL [1, places]: the next place belongs to another text, or there is none. Texts never cross the end of a row."""
        g = self._graph
        shifted = g.apply("Slice", text_of_place, g.ints(1), g.constant("to_the_end", [2**62], np.int64), g.ints(1))
        following = g.apply("Concat", shifted, g.constant("no_text", [[0]], np.int64), axis=1)
        return g.apply("Not", g.apply("Equal", text_of_place, following))


def position_table(source: SourceModel) -> Float32Array:
    """FP32 [max_positions, hidden]: what is added to the word of each position, the token type that single texts have among it."""
    table = source.weights["embeddings.position_embeddings.weight"][source.config.first_position :]
    if source.config.token_types:
        table = table + source.weights["embeddings.token_type_embeddings.weight"][0]
    return table
