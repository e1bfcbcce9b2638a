"""BERT's forward pass in float64 NumPy, from the papers' equations, one text at a time: what the exported graphs are held to.

It shares nothing with the graphs but the weights: no packing, no mask, no ONNX.
Devlin et al. 2018 (arXiv 1810.04805); Vaswani et al. 2017 (1706.03762); GELU: Hendrycks, Gimpel 2016 (1606.08415);
layer normalisation: Ba et al. 2016 (1607.06450).
"""

import math
from collections.abc import Sequence

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
        pooled = hidden[0] if self._source.pooling == "cls" else hidden.mean(axis=0)
        unit: Float64Array = pooled / np.linalg.norm(pooled)
        return unit

    def _embed(self, ids: Sequence[int]) -> Float64Array:
        table = {
            kind: self._weights[f"embeddings.{kind}_embeddings.weight"] for kind in ("word", "position", "token_type")
        }
        return self._norm(
            "embeddings.LayerNorm", table["word"][list(ids)] + table["position"][: len(ids)] + table["token_type"][0]
        )

    def _layer(self, name: str, hidden: Float64Array) -> Float64Array:
        attended = self._dense(f"{name}.attention.output.dense", self._attention(f"{name}.attention.self", hidden))
        hidden = self._norm(f"{name}.attention.output.LayerNorm", hidden + attended)
        wide = self._dense(f"{name}.intermediate.dense", hidden)
        gelu = wide * 0.5 * (1.0 + _erf(wide / math.sqrt(2.0)))
        return self._norm(f"{name}.output.LayerNorm", hidden + self._dense(f"{name}.output.dense", gelu))

    def _attention(self, name: str, hidden: Float64Array) -> Float64Array:
        query, key, value = (self._dense(f"{name}.{part}", hidden) for part in ("query", "key", "value"))
        size = self._source.config.head_size
        heads = []
        for head in range(self._source.config.heads):
            part = slice(head * size, (head + 1) * size)
            scores = query[:, part] @ key[:, part].T / math.sqrt(size)
            weights = np.exp(scores - scores.max(axis=1, keepdims=True))
            heads.append(weights / weights.sum(axis=1, keepdims=True) @ value[:, part])
        return np.concatenate(heads, axis=1)

    def _dense(self, name: str, hidden: Float64Array) -> Float64Array:
        product: Float64Array = hidden @ self._weights[f"{name}.weight"].T + self._weights[f"{name}.bias"]
        return product

    def _norm(self, name: str, hidden: Float64Array) -> Float64Array:
        centred = hidden - hidden.mean(axis=1, keepdims=True)
        variance = (centred**2).mean(axis=1, keepdims=True)
        unit = centred / np.sqrt(variance + self._source.config.norm_epsilon)
        scaled: Float64Array = unit * self._weights[f"{name}.weight"] + self._weights[f"{name}.bias"]
        return scaled
