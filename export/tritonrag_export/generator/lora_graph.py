"""A decoder's graph that bears adapters: each adapted product gets a side branch whose two matrices are inputs.

    before    x -> MatMul(W) -> y
    after     x -> MatMul(W) -> Add -> y
              x -> MatMul(A) -> MatMul(B) -^

A [in, rank] and B [rank, out] are inputs with a default (ONNX: an input that is an initializer too). The default is zeros of
rank 1, so without an adapter y is what it was to the last bit; the rank is symbolic, so adapters of any rank fit. A module
that an adapter leaves out keeps its default, so adapters of different modules share one graph. It does not matter whether
W is quantised: the branch stands beside the product.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from tritonrag_backends.generation.genai.format import adapter_file
from tritonrag_client.errors import BadRequestError
from tritonrag_export.generator.lora import LoraAdapter, LoraPair

_GRAPH_FILE: Final = "model.onnx"
_DEFAULT_RANK: Final = 1
# The builder's names are the same for every architecture; those of the model's modules end alike.
_OUTPUT: Final = re.compile(r"/model/layers\.(?P<layer>\d+)/(?P<block>attn|mlp)/(?P<proj>\w+)/MatMul/output_0")
_MODULE: Final = re.compile(r"(?:.*\.)?layers\.(?P<layer>\d+)\.(?P<block>self_attn|attn|mlp)\.(?P<proj>\w+)")
_ELEMENT_TYPES: Final[Mapping[int, type[np.floating[Any]]]] = {
    TensorProto.FLOAT: np.float32,
    TensorProto.FLOAT16: np.float16,
}


class AdaptableGraph:
    """The graph in a folder that the builder wrote, and the places in it that take an adapter."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / _GRAPH_FILE
        # The weights lie in a file beside it, which stays as it is.
        self._model = onnx.load(self._path, load_external_data=False)
        self._products = {
            output: node for node in self._model.graph.node for output in node.output if _OUTPUT.fullmatch(output)
        }
        self._initializers = {tensor.name: tensor for tensor in self._model.graph.initializer}

    def add_adapters(self, adapters: Sequence[LoraAdapter]) -> None:
        """Give every product that one of the adapters changes its branch, and save the graph. Raises BadRequestError."""
        shapes = {
            _output_of(module): self._check(adapter.name, module, pair)
            for adapter in adapters
            for module, pair in adapter.pairs.items()
        }
        branches = {output: self._branch(output, *shape) for output, shape in shapes.items()}
        self._replace_nodes(branches)
        onnx.save(self._model, self._path)

    def write(self, adapter: LoraAdapter, folder: Path) -> None:
        """Write an adapter's weights to its file below `folder`, in the type that the graph computes in."""
        from onnxruntime import AdapterFormat, OrtValue  # noqa: PLC0415 - heavy

        values: dict[str, npt.NDArray[np.floating[Any]]] = {}
        for module, pair in adapter.pairs.items():
            output = _output_of(module)
            dtype = _ELEMENT_TYPES[self._element_type(output)]
            down, up = _names(output)
            values |= {down: pair.down.astype(dtype), up: pair.up.astype(dtype)}
        path = folder / adapter_file(adapter.name)
        path.parent.mkdir(exist_ok=True)
        file = AdapterFormat()
        file.set_adapter_version(1)
        file.set_model_version(1)
        file.set_parameters({name: OrtValue.ortvalue_from_numpy(value) for name, value in values.items()})
        file.export_adapter(str(path))

    def _check(self, name: str, module: str, pair: LoraPair) -> tuple[int, int]:
        """Elements in and out of the module's product; raises BadRequestError where the adapter does not fit."""
        output = _output_of(module)
        if output not in self._products:
            kinds = sorted({match["proj"] for match in map(_OUTPUT.fullmatch, self._products) if match})
            raise BadRequestError(
                f"adapter {name} changes {module}, which this model's graph has no place for; "
                f"train it on some of {', '.join(kinds)} in the model's own layers"
            )
        shape = self._shape(self._products[output])
        if (pair.down.shape[0], pair.up.shape[1]) != shape:
            raise BadRequestError(
                f"adapter {name} is of another model: {module} takes {shape[0]} and gives {shape[1]} elements here, "
                f"and {pair.down.shape[0]} and {pair.up.shape[1]} there"
            )
        return shape

    def _shape(self, node: onnx.NodeProto) -> tuple[int, int]:
        if node.op_type == "MatMul":
            rows, columns = self._initializers[node.input[1]].dims
            return rows, columns
        sizes = {attribute.name: attribute.i for attribute in node.attribute}
        return sizes["K"], sizes["N"]  # MatMulNBits

    def _element_type(self, output: str) -> int:
        """What the product computes in: the type of its weights, or of their scales where they are quantised."""
        node = self._products[output]
        kind: int = self._initializers[node.input[1 if node.op_type == "MatMul" else 2]].data_type
        return kind

    def _branch(self, output: str, rows: int, columns: int) -> Sequence[onnx.NodeProto]:
        kind = self._element_type(output)
        down, up = _names(output)
        rank = f"{output}/rank"
        for name, shape, dims in (
            (down, (rows, _DEFAULT_RANK), (rows, rank)),
            (up, (_DEFAULT_RANK, columns), (rank, columns)),
        ):
            self._model.graph.initializer.append(numpy_helper.from_array(np.zeros(shape, _ELEMENT_TYPES[kind]), name))
            self._model.graph.input.append(helper.make_tensor_value_info(name, kind, dims))
        node = self._products[output]
        base, narrow, wide = (f"{output}/{part}" for part in ("base", "lora_A", "lora_B"))
        node.output[0] = base
        return [
            helper.make_node("MatMul", [node.input[0], down], [narrow], name=narrow),
            helper.make_node("MatMul", [narrow, up], [wide], name=wide),
            helper.make_node("Add", [base, wide], [output], name=f"{output}/lora"),
        ]

    def _replace_nodes(self, branches: Mapping[str, Iterable[onnx.NodeProto]]) -> None:
        """Put each branch right behind its product, so that the nodes stay in an order of computation."""
        following = {self._products[output].name: nodes for output, nodes in branches.items()}
        nodes = [both for node in self._model.graph.node for both in (node, *following.get(node.name, ()))]
        del self._model.graph.node[:]
        self._model.graph.node.extend(nodes)


def _output_of(module: str) -> str:
    """The tensor that a module's product gives; empty where its name is none that the builder has a product for."""
    match = _MODULE.fullmatch(module)
    if match is None:
        return ""
    block = "mlp" if match["block"] == "mlp" else "attn"
    return f"/model/layers.{match['layer']}/{block}/{match['proj']}/MatMul/output_0"


def _names(output: str) -> tuple[str, str]:
    """The graph inputs of a product's branch, such as model.layers.0.attn.q_proj.lora_A."""
    stem = output.removeprefix("/").removesuffix("/MatMul/output_0").replace("/", ".")
    return f"{stem}.lora_A", f"{stem}.lora_B"
