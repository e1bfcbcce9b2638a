"""A small notation for writing ONNX graphs: constants and operators, named once, in order."""

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from tritonrag_export.embedder.families import Activation

# The IR version that goes with the newest opset we use; ONNX Runtime 1.23 and later read it.
_IR_VERSION = 11


class GraphBuilder:
    """Collects nodes and constants. Every method returns the name of the tensor that it made."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}

    def constant(self, name: str, value: npt.ArrayLike, dtype: npt.DTypeLike = np.float32) -> str:
        """A constant tensor; the same name again is the same tensor."""
        if name not in self._constants:
            self._constants[name] = numpy_helper.from_array(np.array(value, dtype, order="C"), name)
        return name

    def ints(self, *values: int) -> str:
        """A constant INT64 vector: axes, shapes."""
        return self.constant("ints_" + "_".join(map(str, values)), values, np.int64)

    def apply(self, operator: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:  # noqa: ANN401  # as ONNX has them
        """One operator with one output."""
        output = output or f"{operator}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(operator, list(inputs), [output], name=f"node_{output}", **attributes))
        return output

    def model(
        self,
        *,
        inputs: dict[str, list[str]],
        output: str,
        output_shape: list[str | int],
        opset: int,
        input_type: int = TensorProto.INT64,
    ) -> onnx.ModelProto:
        """The finished, checked model: inputs of one type with the given symbolic shapes, one FP32 output."""
        graph = helper.make_graph(
            self._nodes,
            "encoder",
            [helper.make_tensor_value_info(name, input_type, shape) for name, shape in inputs.items()],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, output_shape)],
            list(self._constants.values()),
        )
        opsets = [helper.make_opsetid("", opset)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION, producer_name="tritonrag")
        onnx.checker.check_model(model, full_check=True)
        return model


def activate(graph: GraphBuilder, activation: Activation, tensor: str) -> str:
    """The activation function between the two dense layers of a feed-forward block."""
    if activation == "relu":
        return graph.apply("Relu", tensor)
    if activation == "gelu_tanh":
        return graph.apply("Gelu", tensor, approximate="tanh")
    return graph.apply("Gelu", tensor)
