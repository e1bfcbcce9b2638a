"""Settings become the library's arguments: only what is set, each by its name; what does not go together is refused first."""

import os
from pathlib import Path
from typing import Any

import pytest
from test_trtllm_engine import opened, script

from tritonrag_backends.generation.tensorrt_llm.devices import gpus_of, prepare_environment
from tritonrag_backends.generation.tensorrt_llm.settings import TrtllmSettings
from tritonrag_backends.settings import load_settings
from tritonrag_client.errors import BadRequestError

__all__ = ["script"]


def test_what_is_not_set_is_left_to_the_library(script: Any, tiny_hf_dir: Path) -> None:
    opened(tiny_hf_dir)
    assert set(script.llm_arguments) == {
        "model",
        "trust_remote_code",
        "tensor_parallel_size",
        "pipeline_parallel_size",
        "kv_cache_config",
    }
    assert script.llm_arguments["trust_remote_code"] is False
    assert script.llm_arguments["kv_cache_config"].model_fields_set == {"enable_block_reuse"}


def test_everything_that_is_set_reaches_the_library(script: Any, tiny_hf_dir: Path) -> None:
    opened(
        tiny_hf_dir,
        tensor_parallel=2,
        pipeline_parallel=2,
        expert_parallel=2,
        dtype="bfloat16",
        max_batch_size=8,
        max_num_tokens=4096,
        max_seq_len=4096,
        chunked_prefill=True,
        scheduler="max_utilization",
        stream_interval=2,
        sampler="TorchSampler",
        kv_fraction=0.5,
        kv_max_tokens=1000,
        kv_dtype="fp8",
        kv_tokens_per_block=64,
        kv_host_bytes=10,
        guided_decoding="xgrammar",
        perf_metrics=True,
        speculative="ngram",
        max_draft_len=4,
        ngram_size=3,
        devices="0,1,2,3",
    )
    given = script.llm_arguments
    assert (given["tensor_parallel_size"], given["pipeline_parallel_size"], given["moe_expert_parallel_size"]) == (
        2,
        2,
        2,
    )
    assert (given["max_batch_size"], given["max_num_tokens"], given["max_seq_len"]) == (8, 4096, 4096)
    assert (given["enable_chunked_prefill"], given["guided_decoding_backend"]) == (True, "xgrammar")
    cache = given["kv_cache_config"]
    assert (cache.free_gpu_memory_fraction, cache.dtype, cache.tokens_per_block, cache.host_cache_size) == (
        0.5,
        "fp8",
        64,
        10,
    )
    assert given["scheduler_config"].capacity_scheduler_policy == "MAX_UTILIZATION"
    assert (given["speculative_config"].max_draft_len, given["speculative_config"].max_matching_ngram_size) == (4, 3)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"speculative": "draft", "max_draft_len": 4}, "draft_model"),
        ({"speculative": "ngram", "ngram_size": 3}, "max_draft_len"),
        ({"max_draft_len": 4}, "max_draft_len"),
        ({"ngram_size": 4}, "ngram_size"),
        ({"kv_host_bytes": 1, "block_reuse": False}, "block_reuse"),
        ({"max_loras": 2}, "LORA_DIR"),
        ({"devices": "0,1"}, "tensor_parallel"),
        ({"devices": "0,0", "tensor_parallel": 2}, "once"),
    ],
)
def test_half_a_setting_is_refused_before_the_library_is_imported(
    tiny_hf_dir: Path, settings: dict[str, Any], named: str
) -> None:
    with pytest.raises(BadRequestError, match=named):
        opened(tiny_hf_dir, **settings)


def test_each_instance_sees_its_own_gpus_before_the_import(script: Any, tiny_hf_dir: Path) -> None:
    from tritonrag_backends.generation.tensorrt_llm.engine import open_tensorrt_llm  # noqa: PLC0415

    settings = TrtllmSettings(model=tiny_hf_dir, devices="0,1;2,3", tensor_parallel=2)
    open_tensorrt_llm(settings, instance=1)
    assert script.visible_devices == os.environ["CUDA_VISIBLE_DEVICES"] == "2,3"
    with pytest.raises(BadRequestError, match="2 groups"):
        gpus_of(settings, 2)
    with pytest.raises(BadRequestError, match="DEVICES"):
        gpus_of(TrtllmSettings(), 1)


def test_what_another_mpi_job_left_is_dropped_and_what_a_person_set_stays() -> None:
    environment = {"OMPI_COMM_WORLD_RANK": "1", "PMIX_RANK": "1", "PMI_RANK": "1", "OMPI_MCA_btl": "self", "HOME": "/"}
    prepare_environment((), environment)
    assert environment == {"OMPI_MCA_btl": "self", "HOME": "/"}


def test_every_leaf_is_an_environment_variable() -> None:
    settings = load_settings({"TRITONRAG_TRTLLM_MODEL": "/m", "TRITONRAG_TRTLLM_KV_FRACTION": "0.5"})
    assert settings.trtllm.kv_fraction == 0.5
    assert load_settings(settings.to_environment()).trtllm == settings.trtllm
