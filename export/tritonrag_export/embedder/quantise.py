"""FP32 graph to INT8: weights per output channel, activations measured on the fly.

QInt8 weights per channel run 2.1 to 3.6 times as fast as FP32 on a CPU with VNNI; QUInt8 weights only half as fast as that.
Only products with constant weights: attention's own products stay FP32. The embedding table too: in INT8 it
would save 35 MB of 58 on disk and no time (0.4 of 45 ms is spent in it).
"""

import tempfile
from pathlib import Path

import onnx
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.quantization.quant_utils import add_pre_process_metadata


def quantise(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph with INT8 MatMul; inputs and output unchanged."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    # Our graph has nothing to preprocess; unmarked, the quantiser says so on the root logger, and installs a handler there.
    add_pre_process_metadata(copy)
    with tempfile.TemporaryDirectory(prefix="tritonrag-quantise-") as folder:
        path = Path(folder) / "int8.onnx"
        quantize_dynamic(
            copy,
            path,
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            weight_type=QuantType.QInt8,
            extra_options={"MatMulConstBOnly": True, "DefaultTensorType": onnx.TensorProto.FLOAT},
        )
        return onnx.load(path)
