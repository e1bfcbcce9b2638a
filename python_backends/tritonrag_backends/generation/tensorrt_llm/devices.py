"""Which GPUs this process sees. Must be settled before the library is imported: CUDA looks once, and MPI's workers inherit it."""

import logging
from collections.abc import MutableMapping

from tritonrag_backends.generation.device_groups import device_group
from tritonrag_backends.generation.tensorrt_llm.settings import TrtllmSettings
from tritonrag_client.errors import BadRequestError

_LOG = logging.getLogger(__name__)
_DEVICES = "TRITONRAG_TRTLLM_DEVICES"
# What mpirun tells its job; a process that starts MPI workers of its own must not take it for theirs.
_JOB = ("OMPI_", "PMIX_", "PMI_", "ORTE_")
_CONFIGURATION = ("OMPI_MCA_", "PMIX_MCA_")  # settings that a person made, not a job's state
_JOB_IN_CONFIGURATION = "OMPI_MCA_orte_"


def gpus_of(settings: TrtllmSettings, instance: int) -> tuple[str, ...]:
    """The GPUs of this instance as CUDA_VISIBLE_DEVICES names them; empty: whatever there is.

    Raises BadRequestError where `devices` has no group for the instance or a group of another size than the model needs.
    """
    if not settings.devices.strip():
        if instance > 0:
            raise BadRequestError(f"generator instance {instance} has no GPUs; set {_DEVICES} to a group for each: 0;1")
        return ()
    group = device_group(settings.devices, instance, variable=_DEVICES)
    needed = settings.tensor_parallel * settings.pipeline_parallel
    if len(group) != needed:
        raise BadRequestError(
            f"{_DEVICES} gives instance {instance} {len(group)} GPUs, and tensor_parallel {settings.tensor_parallel}"
            f" times pipeline_parallel {settings.pipeline_parallel} needs {needed}; name as many"
        )
    return group


def prepare_environment(group: tuple[str, ...], environment: MutableMapping[str, str]) -> None:
    """Show the process its GPUs alone and take away what another MPI job left, unless NVIDIA's launcher for several nodes runs."""
    if group:
        # The second name is the one that the library hands on to its MPI workers.
        environment["CUDA_VISIBLE_DEVICES"] = environment["TRTLLM_VISIBLE_DEVICES"] = ",".join(group)
    if environment.get("TLLM_SPAWN_PROXY_PROCESS") == "1":  # trtllm-llmapi-launch: this job is ours
        return
    dropped = [name for name in environment if _is_job_state(name)]
    for name in dropped:
        del environment[name]
    if dropped:
        _LOG.info("dropped %d variables of an MPI job that is not ours", len(dropped))


def _is_job_state(name: str) -> bool:
    if name.startswith(_CONFIGURATION):
        return name.startswith(_JOB_IN_CONFIGURATION)
    return name.startswith(_JOB)
