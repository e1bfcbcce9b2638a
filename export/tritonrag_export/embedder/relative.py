"""MPNet's bias by relative position, as a table over distances: what the graphs look up."""

from typing import Final

import numpy as np
import numpy.typing as npt

from tritonrag_export.embedder.source import SourceModel

_FARTHEST: Final = 128  # all distances from here on share a bucket; no config.json says otherwise


def bias_by_distance(source: SourceModel) -> npt.NDArray[np.float32]:
    """FP32 [2 * max_positions - 1, heads]: row `max_positions - 1 + d` is for a key that stands d places after its query."""
    config = source.config
    distances = np.arange(1 - config.max_positions, config.max_positions)
    half = config.relative_buckets // 2
    exact = half // 2
    far = np.maximum(np.abs(distances), exact)
    # The least bit more keeps a distance that is a bucket's first one in it.
    scale = np.log(far / exact) / np.log(_FARTHEST / exact) * (half - exact) + 1e-9
    bucket = np.where(
        np.abs(distances) < exact, np.abs(distances), np.minimum(exact + scale.astype(np.int64), half - 1)
    )
    bias: npt.NDArray[np.float32] = source.weights["encoder.relative_attention_bias.weight"][
        bucket + np.where(distances > 0, half, 0)
    ]
    return bias


def bias_by_places(source: SourceModel) -> npt.NDArray[np.float32]:
    """FP32 [1, heads, max_positions, max_positions]: the bias of each query's place (row) to each key's."""
    places = np.arange(source.config.max_positions)
    distances = places[None, :] - places[:, None] + source.config.max_positions - 1
    bias: npt.NDArray[np.float32] = bias_by_distance(source)[distances].transpose(2, 0, 1)[None]
    return bias
