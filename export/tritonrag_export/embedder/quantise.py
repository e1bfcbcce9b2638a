"""FP32 graph to INT8: weights per output channel; activations by one known scale after a layer normalisation, else per token.

ONNX Runtime's own `quantize_dynamic` gives a call's activations one scale, measured on the fly, so that a text's vector depends
on the texts that happen to share its batch: a question answered alone and the same question under load had a cosine of 0.954 at
worst. Here what shares a text's batch cannot reach it:

- What comes of a layer normalisation is of one size whatever the text. Its scale is measured when the model is exported
  (smoothing.py), with some room above, and a product takes its bias along. Without the room (1.2) the cosine to fp32 fell from
  0.9988 to 0.9983, and from 0.995 to 0.991 at worst: values above are cut off.
- What attention and the activation function give has outliers that no calibration foresees. There each token has its own scale,
  measured on the fly. One known scale for the latter too cost 0.01 of cosine.

The time that this takes and the cosines: docs/benchmarks/embedder.md. All scales are symmetric.
QInt8 weights per channel run 2.1 to 3.6 times as fast as FP32 on a CPU with VNNI; QUInt8 weights half as fast as that;
MatMulNBits with 8 bits, whose scales are per token too, a third.
Only products with constant weights are quantised: attention's own stay FP32, the embedding table too (0.4 of 50 ms).
"""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

_CONTRIB: Final = "com.microsoft"
_STEPS: Final = 127  # on either side of zero
_ROOM: Final = 1.2  # above the largest magnitude that the calibration saw
# The activations' zero lies at 128 of an unsigned byte: the CPU's dot product wants unsigned by signed.
_CONSTANTS: Final[dict[str, npt.NDArray[Any]]] = {
    "quantise_step": np.array(1 / _STEPS, np.float32),
    "quantise_zero": np.array(128, np.uint8),
    "quantise_axis": np.array([-1], np.int64),
    "quantise_least": np.array(1e-9, np.float32),  # a token of zeros must not divide by zero
    "quantise_least_gelu": np.array(0.17, np.float32),  # GELU goes down to -0.16997, its tanh form to -0.17004
}


def quantise(model: onnx.ModelProto, largest: Mapping[str, float]) -> onnx.ModelProto:
    """The same graph with INT8 products; inputs and output unchanged.

    `largest` is the largest magnitude of a dense layer's input, by the layer's name (smoothing.py), where one scale suits it.
    """
    return _Quantiser(model, largest).run()


class _Quantiser:
    def __init__(self, model: onnx.ModelProto, largest: Mapping[str, float]) -> None:
        self._model = onnx.ModelProto()
        self._model.CopyFrom(model)
        self._largest = largest
        self._constants = {constant.name: constant for constant in model.graph.initializer}
        self._makers = {node.output[0]: node for node in model.graph.node}
        self._nodes: list[onnx.NodeProto] = []
        # Activations are shared: query, key and value read the same one.
        self._per_token: dict[str, tuple[str, str]] = {}
        self._by_scale: dict[str, str] = {}

    def run(self) -> onnx.ModelProto:
        folded: set[str] = set()
        for node in self._model.graph.node:
            if node.output[0] in folded:
                continue
            if node.op_type != "MatMul" or not self._is_weight(node.input[1]):
                self._nodes.append(node)
            elif (layer := node.input[1].removesuffix(".weight")) in self._largest:
                folded.add(self._product_with_bias(node, self._largest[layer]))
            else:
                self._product(node)
        for name, value in _CONSTANTS.items():
            self._constants[name] = numpy_helper.from_array(value, name)
        graph = self._model.graph
        del graph.node[:], graph.initializer[:]
        graph.node.extend(self._nodes)
        graph.initializer.extend(self._constants.values())
        self._model.opset_import.append(helper.make_opsetid(_CONTRIB, 1))
        return self._model

    def _is_weight(self, name: str) -> bool:
        constant = self._constants.get(name)
        return constant is not None and constant.data_type == TensorProto.FLOAT

    def _product_with_bias(self, node: onnx.NodeProto, largest: float) -> str:
        """X W + b with one scale for X; returns the name of the sum, whose own node is no longer needed."""
        activations, weight = node.input
        (add,) = (one for one in self._model.graph.node if node.output[0] in one.input)
        (bias,) = (name for name in add.input if name != node.output[0])
        tokens, scale = self._activations_by_scale(activations, largest)
        columns, column_scale = self._weight(weight)
        inputs = [tokens, columns, scale, column_scale, "quantise_zero", "", bias]
        return self._apply("MatMulIntegerToFloat", inputs, add.output[0], domain=_CONTRIB)

    def _activations_by_scale(self, name: str, largest: float) -> tuple[str, str]:
        """UINT8 of the tensor's shape, and the constant FP32 [] that is its step."""
        scale = f"{name}_step"
        self._constants[scale] = numpy_helper.from_array(np.array(_ROOM * largest / _STEPS, np.float32), scale)
        if name not in self._by_scale:
            inputs = [name, scale, "quantise_zero"]
            self._by_scale[name] = self._apply("QuantizeLinear", inputs, f"{name}_quantised")
        return self._by_scale[name], scale

    def _product(self, node: onnx.NodeProto) -> None:
        """X W as (q(X) q(W)) times the scales of X's rows and W's columns."""
        activations, weight = node.input
        tokens, token_scale = self._activations_per_token(activations)
        columns, column_scale = self._weight(weight)
        inputs = [tokens, columns, "quantise_step", column_scale, "quantise_zero"]
        scaled = self._apply("MatMulIntegerToFloat", inputs, f"{node.output[0]}_per_token", domain=_CONTRIB)
        self._apply("Mul", [scaled, token_scale], node.output[0])

    def _activations_per_token(self, name: str) -> tuple[str, str]:
        """UINT8 of the tensor's shape, and FP32 [..., 1]: at least the largest magnitude of each token."""
        if name not in self._per_token:
            scale = self._largest_of_tokens(name)
            unit = self._apply("Div", [name, scale], f"{name}_unit")
            tokens = self._apply("QuantizeLinear", [unit, "quantise_step", "quantise_zero"], f"{name}_quantised")
            self._per_token[name] = tokens, scale
        return self._per_token[name]

    def _largest_of_tokens(self, name: str) -> str:
        """What comes of GELU or ReLU needs no magnitudes: its least value is known."""
        maker = self._makers[name].op_type
        positive = {"Gelu": "quantise_least_gelu", "Relu": "quantise_least"}.get(maker)
        values = name if positive else self._apply("Abs", [name], f"{name}_magnitude")
        largest = self._apply("ReduceMax", [values, "quantise_axis"], f"{name}_largest")
        return self._apply("Max", [largest, positive or "quantise_least"], f"{name}_scale")

    def _weight(self, name: str) -> tuple[str, str]:
        """INT8 [in, out] and its FP32 [out] scales, in place of the FP32 weight."""
        weight: npt.NDArray[np.float32] = numpy_helper.to_array(self._constants.pop(name))
        largest = np.abs(weight).max(axis=0)
        scale = np.where(largest > 0, largest / _STEPS, 1).astype(np.float32)
        values = {f"{name}_int8": np.rint(weight / scale).astype(np.int8), f"{name}_scale": scale}
        for key, value in values.items():
            self._constants[key] = numpy_helper.from_array(value, key)
        columns, column_scale = values
        return columns, column_scale

    def _apply(self, operator: str, inputs: list[str], output: str, *, domain: str = "") -> str:
        self._nodes.append(helper.make_node(operator, inputs, [output], f"node_{output}", domain=domain))
        return output
