"""The parts of `encoder`'s configuration that hang on the embedder and the machine, written into Triton's own message."""

from pathlib import Path
from typing import Any, Final

import numpy as np

from tritonrag.encoder_choice import EncoderChoice
from tritonrag_backends.embedding.tensorrt_options import cache_folder, engine_options, make_cache
from tritonrag_client.contract import ATTENTION_MASK, EMBEDDING, INPUT_IDS, MAX_BATCH

MODEL_FILES: Final = {"onnxruntime": "model.onnx", "tensorrt": "model.plan"}  # the names that the backends look for
CONFIGS: Final = {"onnxruntime": "configs/gpu.pbtxt", "tensorrt": "configs/tensorrt.pbtxt", "python": "config.pbtxt"}
_WARMUP: Final = "warmup"  # the folder in which Triton looks for warm-up data


def write_encoder(config: Any, choice: EncoderChoice, folder: Path) -> None:  # noqa: ANN401 - a protobuf message
    """Fill in the configuration of a runtime of Triton's, and put its file and its warm-up data into the model's `folder`.

    The instance groups are in place already. Raises BadRequestError where TensorRT's engines can't be kept.
    """
    if choice.file is None:
        return
    version = folder / "1"
    version.mkdir()
    (version / MODEL_FILES[choice.runtime]).symlink_to(choice.file.absolute())
    for output in config.output:
        if output.name == EMBEDDING:
            output.dims[:] = [choice.manifest.dim]
    config.ClearField("optimization")
    if choice.runtime == "tensorrt" and choice.manifest.plan is not None:
        _name_profiles(config, len(choice.manifest.plan.buckets))
    elif choice.on_gpus:
        _accelerate(config, choice)
    _warm_up(config, choice, folder / _WARMUP)


def _name_profiles(config: Any, count: int) -> None:  # noqa: ANN401
    for group in config.instance_group:
        group.profile[:] = [str(number) for number in range(count)]


def _accelerate(config: Any, choice: EncoderChoice) -> None:  # noqa: ANN401
    """TensorRT first. CUDA needs no word: Triton's backend adds it behind whatever is named, for all that TensorRT refuses."""
    if not choice.tensorrt:
        return
    cache = cache_folder(choice.cache_dir, choice.manifest)
    make_cache(cache)
    accelerator = config.optimization.execution_accelerators.gpu_execution_accelerator.add(name="tensorrt")
    accelerator.parameters.update({"precision_mode": "FP16", **engine_options(choice.buckets, cache)})


def _warm_up(config: Any, choice: EncoderChoice, folder: Path) -> None:  # noqa: ANN401
    """A batch of one and a full one for each bucket, before the model counts as ready: engines are built, memory is taken."""
    folder.mkdir()
    del config.model_warmup[:]
    for length in choice.buckets.lengths:
        ones = f"ones-{length}"
        (folder / ones).write_bytes(np.ones(length, np.int32).tobytes())
        for batch in (1, MAX_BATCH):
            sample = config.model_warmup.add(name=f"{batch} of {length} tokens", batch_size=batch)
            for name in (INPUT_IDS, ATTENTION_MASK):
                data = sample.inputs[name]
                data.data_type = config.input[0].data_type
                data.dims[:] = [length]
            sample.inputs[INPUT_IDS].zero_data = True
            sample.inputs[ATTENTION_MASK].input_data_file = ones
