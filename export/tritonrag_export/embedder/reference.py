"""The forward pass in float64 NumPy, from the papers' equations, one text at a time: what the exported graphs are held to.

It shares nothing with the graphs but the weights: no packing, no mask, no ONNX.
Devlin et al. 2018 (arXiv 1810.04805); Vaswani et al. 2017 (1706.03762); GELU and its tanh form: Hendrycks, Gimpel 2016
(1606.08415); layer normalisation: Ba et al. 2016 (1607.06450); bias by relative position: Raffel et al. 2020 (1910.10683).
"""

import math
from collections.abc import Sequence
from functools import cache

import numpy as np
import numpy.typing as npt

from tritonrag_export.embedder.source import SourceModel

Float64Array = npt.NDArray[np.float64]

_erf = np.vectorize(math.erf, otypes=[np.float64])


class ReferenceEncoder:
    """The model of a source folder, slowly and exactly."""

    def __init__(self, source: SourceModel) -> None:
        self._source = source
        self._weights = {name: value.astype(np.float64) for name, value in source.weights.items()}

    def encode(self, ids: Sequence[int]) -> Float64Array:
        """The unit vector, float64 [dim], of one text given as token ids."""
        hidden = self._embed(ids)
        for number in range(self._source.config.layers):
            hidden = self._layer(f"encoder.layer.{number}", hidden)
        pooled = {"mean": hidden.mean(axis=0), "cls": hidden[0], "last": hidden[-1]}[self._source.pooling]
        unit: Float64Array = pooled / np.linalg.norm(pooled)
        return unit

    def _embed(self, ids: Sequence[int]) -> Float64Array:
        first = self._source.config.first_position
        total = self._weights["embeddings.word_embeddings.weight"][list(ids)]
        total = total + self._weights["embeddings.position_embeddings.weight"][first : first + len(ids)]
        if self._source.config.token_types:
            total = total + self._weights["embeddings.token_type_embeddings.weight"][0]
        return self._norm("embeddings.LayerNorm", total)

    def _layer(self, name: str, hidden: Float64Array) -> Float64Array:
        attended = self._dense(f"{name}.attention.output.dense", self._attention(f"{name}.attention.self", hidden))
        hidden = self._norm(f"{name}.attention.output.LayerNorm", hidden + attended)
        wide = self._activate(self._dense(f"{name}.intermediate.dense", hidden))
        return self._norm(f"{name}.output.LayerNorm", hidden + self._dense(f"{name}.output.dense", wide))

    def _activate(self, wide: Float64Array) -> Float64Array:
        activation = self._source.config.activation
        if activation == "relu":
            return np.maximum(wide, 0.0)
        if activation == "gelu_tanh":
            tanh: Float64Array = 0.5 * wide * (1.0 + np.tanh(math.sqrt(2.0 / math.pi) * (wide + 0.044715 * wide**3)))
            return tanh
        gelu: Float64Array = wide * 0.5 * (1.0 + _erf(wide / math.sqrt(2.0)))
        return gelu

    def _attention(self, name: str, hidden: Float64Array) -> Float64Array:
        query, key, value = (self._dense(f"{name}.{part}", hidden) for part in ("query", "key", "value"))
        size = self._source.config.head_size
        heads = []
        for head in range(self._source.config.heads):
            part = slice(head * size, (head + 1) * size)
            scores = query[:, part] @ key[:, part].T / math.sqrt(size) + self._relative_bias(head, len(hidden))
            weights = np.exp(scores - scores.max(axis=1, keepdims=True))
            heads.append(weights / weights.sum(axis=1, keepdims=True) @ value[:, part])
        return np.concatenate(heads, axis=1)

    def _relative_bias(self, head: int, tokens: int) -> Float64Array | float:
        """[tokens of the query, tokens of the key]: what the distance of the two adds to their score."""
        if not self._source.config.relative_buckets:
            return 0.0
        table = self._weights["encoder.relative_attention_bias.weight"][:, head]
        of_distance = [table[_bucket(distance, len(table))] for distance in range(1 - tokens, tokens)]
        return np.array([of_distance[tokens - 1 - query : 2 * tokens - 1 - query] for query in range(tokens)])

    def _dense(self, name: str, hidden: Float64Array) -> Float64Array:
        product: Float64Array = hidden @ self._weights[f"{name}.weight"].T + self._weights[f"{name}.bias"]
        return product

    def _norm(self, name: str, hidden: Float64Array) -> Float64Array:
        centred = hidden - hidden.mean(axis=1, keepdims=True)
        variance = (centred**2).mean(axis=1, keepdims=True)
        unit = centred / np.sqrt(variance + self._source.config.norm_epsilon)
        scaled: Float64Array = unit * self._weights[f"{name}.weight"] + self._weights[f"{name}.bias"]
        return scaled


@cache
def _bucket(distance: int, buckets: int) -> int:
    """The bucket of a key that stands `distance` places after its query, by whole numbers alone.

    Half of the buckets are for keys that come after. In each half, half again are for one distance each; the others grow by a
    constant factor up to a distance of 128, and the last one holds all beyond.
    """
    half = buckets // 2
    exact = half // 2
    first = half if distance > 0 else 0
    distance = abs(distance)
    if distance < exact:
        return first + distance
    steps = half - exact
    # The largest step with exact * (128 / exact) ^ (step / steps) <= distance, both sides to the power of `steps`.
    step = max(step for step in range(steps) if step == 0 or exact**steps * 128**step <= distance**steps * exact**step)
    return first + exact + step
