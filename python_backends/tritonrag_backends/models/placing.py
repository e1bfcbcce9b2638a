"""On which GPUs an instance of `retriever` searches: from the settings, what Triton gave it, and what FAISS sees."""

from collections.abc import Callable, Mapping

from tritonrag_backends.gpu_numbers import gpus_named
from tritonrag_backends.index.gpu.faiss_gpu import GpuDevice, count_gpus
from tritonrag_backends.index.gpu.placing import Placing, PlacingOptions
from tritonrag_backends.settings import RetrieverSettings
from tritonrag_client.errors import BadRequestError

Seen = Callable[[], int]


def open_placing(
    retriever: RetrieverSettings, args: Mapping[str, str], *, tell: Callable[[str], None], seen: Seen = count_gpus
) -> Placing | None:
    """What brings each version of the index onto GPUs; None: searched on the CPU. `args` is what Triton hands to `initialize`.

    `tell` takes a line for people for each segment. `seen` counts the GPUs that FAISS sees. Raises BadRequestError where the
    settings ask for GPUs that are not there.
    """
    if retriever.device == "cpu" or (retriever.device == "auto" and args["model_instance_kind"] == "CPU"):
        return None
    present = seen()
    if present == 0:
        if retriever.device == "gpu":
            raise BadRequestError(
                "TRITONRAG_RETRIEVER_DEVICE is gpu, and FAISS sees no GPU here: install a build of FAISS for GPUs (faiss-gpu-cuvs) "
                "and give the server a GPU, or set it to auto"
            )
        tell("the index is searched on the CPU: FAISS sees no GPU")
        return None
    options = PlacingOptions(placement=retriever.placement, kind=retriever.gpu_kind, fp16=retriever.gpu_fp16)
    devices = [GpuDevice(gpu, temp_bytes=retriever.gpu_temp_bytes) for gpu in _gpus(retriever, args, present)]
    return Placing(devices, options, tell=tell)


def _gpus(retriever: RetrieverSettings, args: Mapping[str, str], present: int) -> list[int]:
    """All that are named for shards; for a replica the instance's own, or the first where Triton gave it none."""
    named = gpus_named(retriever.devices, present, variable="TRITONRAG_RETRIEVER_DEVICES")
    if retriever.placement == "shard":
        return named
    if args["model_instance_kind"] != "GPU":
        return named[:1]
    own = int(args["model_instance_device_id"])
    if own >= present:
        raise BadRequestError(
            f"Triton put this retriever on GPU {own}, and FAISS sees {present}; give both the same CUDA_VISIBLE_DEVICES"
        )
    return [own]
