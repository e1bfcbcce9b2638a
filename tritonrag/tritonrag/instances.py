"""How many instances of each model run, and on which GPUs: from the settings and the GPUs that there are."""

from dataclasses import dataclass, field
from typing import Final, Literal

from tritonrag_backends.gpu_numbers import gpus_named
from tritonrag_backends.models.threads import allowed_cores
from tritonrag_backends.settings import RetrieverSettings, Settings
from tritonrag_client.contract import EMBEDDER, ENCODER, GENERATOR, RETRIEVE, RETRIEVER
from tritonrag_client.errors import BadRequestError

GPU_PROFILE: Final = "gpu"
_MOST_EMBEDDING: Final = 16  # where nobody says; each holds the model, some 200 MB
Kind = Literal["KIND_CPU", "KIND_GPU", "KIND_MODEL"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Instances:
    """One of Triton's instance groups: `count` instances, with KIND_GPU on the GPU of that number.

    KIND_MODEL is for a model that picks its GPUs itself: Triton gives it none, and binds it to no one's host policy.
    """

    kind: Kind
    count: int
    gpu: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What instances are dealt out over: the profile, how many GPUs Triton will see (0 in profile cpu), and the cores."""

    profile: str
    gpus: int
    cores: int = field(default_factory=allowed_cores)

    @classmethod
    def of(cls, profile: str, gpus: int) -> "Machine":
        """A machine whose `gpus` profile cpu leaves alone."""
        return cls(profile=profile, gpus=gpus if profile == GPU_PROFILE else 0)


def instances_of(model: str, settings: Settings, machine: Machine) -> list[Instances]:
    """The model's instance groups; empty where the settings say nothing of it, so that its configuration counts as it stands.

    One group for each GPU: instances of one group on several GPUs would bear one name, and metrics and files go by the name.
    Raises BadRequestError where the settings name GPUs that are not there or contradict each other.
    """
    if model == EMBEDDER:  # in profile gpu an ensemble, which has none
        return [_cpu(_embedding(settings, machine))] if machine.profile != GPU_PROFILE else []
    if model == RETRIEVE:
        return [_cpu(_embedding(settings, machine))] if is_fused(settings, machine) else []
    if model == ENCODER:
        return _encoder(settings, machine)
    if model == RETRIEVER:
        return _retriever(settings.retriever, machine)
    if model == GENERATOR:
        return _generator(settings, machine)
    return []


def is_fused(settings: Settings, machine: Machine) -> bool:
    """Whether `retrieve` is one model that embeds and searches, and not an ensemble."""
    return machine.profile != GPU_PROFILE and settings.retrieve.fused


def searches_on_gpus(settings: Settings, machine: Machine) -> bool:
    """Whether the retriever may place its index on GPUs."""
    return machine.gpus > 0 and settings.retriever.device != "cpu"


def _embedding(settings: Settings, machine: Machine) -> int:
    """How many processes embed on the CPU."""
    embedder = settings.embedder
    return embedder.instances or max(1, min(_MOST_EMBEDDING, machine.cores // embedder.threads))


def _encoder(settings: Settings, machine: Machine) -> list[Instances]:
    """On the CPU, where it stands in for a GPU, as many as `embedder` has in profile cpu."""
    if not encodes_on_gpus(settings, machine):
        return [_cpu(_embedding(settings, machine))]
    return _on_each(range(machine.gpus), settings.encoder.instances)


def encodes_on_gpus(settings: Settings, machine: Machine) -> bool:
    """Whether `encoder` gets GPUs."""
    return machine.gpus > 0 and settings.encoder.execution != "cpu"


def _retriever(settings: RetrieverSettings, machine: Machine) -> list[Instances]:
    if machine.gpus == 0 or settings.device == "cpu":
        if settings.device == "gpu":
            raise BadRequestError(
                "TRITONRAG_RETRIEVER_DEVICE is gpu, and "
                + ("no GPU is visible" if machine.profile == GPU_PROFILE else "profile cpu uses none")
                + "; set it to auto, or serve with --profile gpu where a GPU is"
            )
        return [_cpu(settings.instances)]
    gpus = gpus_named(settings.devices, machine.gpus, variable="TRITONRAG_RETRIEVER_DEVICES")
    if settings.placement == "shard":  # every instance searches on all of them
        return [Instances(kind="KIND_MODEL", count=settings.instances)]
    return _on_each(gpus, settings.instances)


def _generator(settings: Settings, machine: Machine) -> list[Instances]:
    """One for each group of GPUs that is named; the engine shows each process its own group."""
    count, groups = settings.generator.instances, _device_groups(settings)
    if groups and count not in (1, groups):
        raise BadRequestError(
            f"TRITONRAG_GENERATOR_INSTANCES is {count}, and {_DEVICES[settings.generator.engine]} names {groups} groups of GPUs;"
            " name a group for each instance, or leave the number of instances out"
        )
    engine = settings.generator.engine
    takes_gpus = engine == "tensorrt_llm" or (engine == "onnxruntime_genai" and settings.genai.execution == "cuda")
    kind: Kind = "KIND_MODEL" if machine.gpus and takes_gpus else "KIND_CPU"
    return [Instances(kind=kind, count=groups or count)]


_DEVICES: Final = {"tensorrt_llm": "TRITONRAG_TRTLLM_DEVICES", "onnxruntime_genai": "TRITONRAG_GENAI_DEVICES"}


def _device_groups(settings: Settings) -> int:
    """How many groups of GPUs are named for the engine; 0 where none is."""
    if settings.generator.engine == "tensorrt_llm":
        devices = settings.trtllm.devices
    elif settings.generator.engine == "onnxruntime_genai" and settings.genai.execution == "cuda":
        devices = settings.genai.devices
    else:
        devices = ""
    return len(devices.split(";")) if devices.strip() else 0


def _cpu(count: int) -> Instances:
    return Instances(kind="KIND_CPU", count=count)


def _on_each(gpus: range | list[int], count: int) -> list[Instances]:
    return [Instances(kind="KIND_GPU", count=count, gpu=gpu) for gpu in gpus]
