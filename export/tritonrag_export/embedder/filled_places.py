"""The places of the [rows, row_tokens] grid that hold a token, as a list: what is computed token by token needs no others.

Dense layers, normalisations and activations see [tokens, n], without any padding; attention alone needs the rows.
"""

import numpy as np
import onnx

from tritonrag_export.embedder.graph import GraphBuilder


class FilledPlaces:
    """Goes by `text_ids`, 0 where no text is."""

    def __init__(self, graph: GraphBuilder) -> None:
        """Adds what finds the places to the graph; a few integers a place."""
        self._graph = g = graph
        one, zero = g.constant("one_place", 1, np.int64), g.constant("no_place", 0, np.int64)
        text_of_place = g.apply("Reshape", "text_ids", g.ints(-1))
        self._places = g.apply("Squeeze", g.apply("NonZero", text_of_place), g.ints(0))
        filled = g.apply("Cast", g.apply("Greater", text_of_place, zero), to=onnx.TensorProto.INT64)
        number = g.apply("Sub", g.apply("CumSum", filled, zero), one)
        # A place that no text fills gets some token's values: the mask keeps them from all texts, nobody reads what they become.
        self._tokens = g.apply("Reshape", g.apply("Max", number, zero), g.apply("Shape", "text_ids"))
        self._of_tokens: dict[str, str] = {}

    def of_tokens(self, tensor: str) -> str:
        """[tokens] of an input [rows, row_tokens]."""
        if tensor not in self._of_tokens:
            flat = self._graph.apply("Reshape", tensor, self._graph.ints(-1))
            self._of_tokens[tensor] = self._graph.apply("Gather", flat, self._places)
        return self._of_tokens[tensor]

    def in_rows(self, tensor: str) -> str:
        """[rows, row_tokens, n] of [tokens, n]."""
        return self._graph.apply("Gather", tensor, self._tokens)

    def out_of_rows(self, tensor: str, width: int) -> str:
        """[tokens, width] of [rows, row_tokens, width]."""
        return self._graph.apply(
            "Gather", self._graph.apply("Reshape", tensor, self._graph.ints(-1, width)), self._places
        )
