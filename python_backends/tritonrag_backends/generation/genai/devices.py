"""Which GPU the worker process sees: CUDA looks at its environment once, when the library is first used."""

from typing import Final

from tritonrag_backends.generation.device_groups import device_group
from tritonrag_backends.generation.genai.settings import GenaiSettings
from tritonrag_client.errors import BadRequestError

_DEVICES: Final = "TRITONRAG_GENAI_DEVICES"


def worker_environment(settings: GenaiSettings, instance: int) -> dict[str, str]:
    """What is added to the environment of this instance's worker: its GPU as the only one; nothing where `devices` is blank.

    Raises BadRequestError where `devices` has no GPU for the instance or several, or where the model runs on the CPU.
    """
    if not settings.devices.strip():
        return {}
    if settings.execution != "cuda":
        raise BadRequestError(
            f"{_DEVICES} is {settings.devices!r}, and TRITONRAG_GENAI_EXECUTION is {settings.execution!r};"
            " set it to cuda, or leave the devices out"
        )
    group = device_group(settings.devices, instance, variable=_DEVICES)
    if len(group) > 1:
        raise BadRequestError(
            f"{_DEVICES} gives generator instance {instance} {len(group)} GPUs, and ONNX Runtime GenAI uses one;"
            " part them by semicolons, as in 0;1"
        )
    return {"CUDA_VISIBLE_DEVICES": group[0]}
