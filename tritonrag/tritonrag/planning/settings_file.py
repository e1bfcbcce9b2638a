"""A plan as settings: the variables that `tritonrag serve` reads, and the file that holds them."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tritonrag.planning.planner import Plan
from tritonrag.planning.retrieval import TARGET_LOAD, TEMP_BYTES
from tritonrag_backends.environment import ENV_PREFIX
from tritonrag_backends.settings import LimitSettings, known_variables, load_settings
from tritonrag_client.errors import InternalError, UnavailableError

_PROFILE: Final = f"{ENV_PREFIX}PROFILE"  # an option of `serve`, not a leaf of the settings


def environment_of(plan: Plan) -> dict[str, str]:
    """The variables, checked by reading them as the server will; what the plan doesn't decide keeps its default.

    trtllm.kv_fraction is left to the library: 90 % of what is free when index and weights are there.
    """
    request = plan.request
    variables = {
        _PROFILE: plan.profile,
        **_retriever(plan),
        **_generator(plan),
        **_limits(plan),
    }
    if request.gpus:
        variables["TRITONRAG_ENCODER_INSTANCES"] = "1"
    else:
        variables["TRITONRAG_EMBEDDER_INSTANCES"] = str(_embedders(plan))
    _check(variables)
    return variables


def write_settings(plan: Plan, path: Path) -> None:
    """Write NAME=value lines, quoted where a shell needs it (a shell, compose and systemd read that; `docker run` keeps quotes).

    Raises UnavailableError where the file can't be written.
    """
    lines = [
        "# Written by `tritonrag plan`. set -a; . ./FILE; set +a; tritonrag serve",
        *settings_lines(environment_of(plan)),
    ]
    try:
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    except OSError as error:
        raise UnavailableError(
            f"{path} can't be written ({error.strerror}); name a file in a folder of yours"
        ) from error


def settings_lines(variables: Mapping[str, str]) -> list[str]:
    """The variables as a shell reads them."""
    return [f"{name}={shlex.quote(value)}" for name, value in variables.items()]


def device_groups(gpus: int, ways: int) -> list[str]:
    """GPUs by number, `ways` to an instance: 4 GPUs, 2 ways: ["0,1", "2,3"]. GPUs that make no whole group are left out."""
    return [",".join(map(str, range(first, first + ways))) for first in range(0, gpus - ways + 1, ways)]


def _retriever(plan: Plan) -> dict[str, str]:
    retrieval, request = plan.retrieval, plan.request
    variables = {
        "TRITONRAG_RETRIEVER_DEVICE": retrieval.device,
        "TRITONRAG_RETRIEVER_INSTANCES": "1",
        "TRITONRAG_RETRIEVER_NUM_PASSAGES": str(request.num_passages),
    }
    if retrieval.gpu_kind is not None:
        variables |= {
            "TRITONRAG_RETRIEVER_DEVICES": ",".join(map(str, range(request.gpus))),
            "TRITONRAG_RETRIEVER_PLACEMENT": retrieval.placement,
            "TRITONRAG_RETRIEVER_GPU_KIND": retrieval.gpu_kind,
            "TRITONRAG_RETRIEVER_GPU_FP16": str(request.fp16),
            "TRITONRAG_RETRIEVER_GPU_TEMP_BYTES": str(TEMP_BYTES),
        }
    return variables


def _generator(plan: Plan) -> dict[str, str]:
    generation, request = plan.generation, plan.request
    if generation is None:
        return {"TRITONRAG_GENERATOR_ENGINE": "extractive"}
    variables = {
        "TRITONRAG_GENERATOR_ENGINE": "tensorrt_llm" if request.gpus else "onnxruntime_genai",
        "TRITONRAG_GENERATOR_INSTANCES": str(generation.instances),
        "TRITONRAG_GENERATOR_MAX_TOKENS": str(request.answer.answer_tokens),
    }
    if not request.gpus:
        return variables
    variables |= {
        "TRITONRAG_TRTLLM_TENSOR_PARALLEL": str(generation.tensor_parallel),
        "TRITONRAG_TRTLLM_DEVICES": ";".join(device_groups(request.gpus, generation.tensor_parallel)),
    }
    if request.fp8_kv:
        variables["TRITONRAG_TRTLLM_KV_DTYPE"] = "fp8"
    if request.model_folder is not None:
        variables["TRITONRAG_TRTLLM_MODEL"] = str(request.model_folder)
    return variables


def _limits(plan: Plan) -> dict[str, str]:
    """What a request may ask for, where the plan asks for more than that by default."""
    asked = {
        "TRITONRAG_LIMITS_NUM_PASSAGES": (plan.request.num_passages, LimitSettings().num_passages),
        "TRITONRAG_LIMITS_MAX_TOKENS": (plan.request.answer.answer_tokens, LimitSettings().max_tokens),
    }
    return {name: str(count) for name, (count, most) in asked.items() if count > most}


def _embedders(plan: Plan) -> int:
    """Embedding processes of one thread: as many as the asked rate keeps busy at the target load, at most one a core."""
    busy = plan.request.qps / (plan.encoder.questions_a_core_second * TARGET_LOAD)
    return max(1, min(plan.request.cores, -int(-busy // 1)))


def _check(variables: Mapping[str, str]) -> None:
    """Every name must be one that something reads, every value one that it takes."""
    unknown = set(variables) - known_variables() - {_PROFILE}
    if unknown:
        raise InternalError(f"the plan made settings that nothing reads: {sorted(unknown)}; this is an error of ours")
    load_settings(variables)
