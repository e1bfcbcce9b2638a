"""Our settings as the library's arguments. Only what is set is passed; half-specified and contradicting settings are refused."""

from collections.abc import Sequence
from typing import Any, Final

from tritonrag_backends.generation.tensorrt_llm.adapters import Adapter, target_modules
from tritonrag_backends.generation.tensorrt_llm.checkpoint import Checkpoint
from tritonrag_backends.generation.tensorrt_llm.foreign import Foreign
from tritonrag_backends.generation.tensorrt_llm.library import Library
from tritonrag_backends.generation.tensorrt_llm.settings import TrtllmSettings
from tritonrag_client.errors import BadRequestError

# Arguments of the PyTorch path alone, or fixed when an engine is built.
_NOT_FOR_ENGINES: Final = (
    "dtype", "expert_parallel", "max_seq_len", "sampler", "stream_interval", "kv_dtype", "draft_model", "lora_dir"
)  # fmt: skip
_POLICIES: Final = {"guaranteed_no_evict": "GUARANTEED_NO_EVICT", "max_utilization": "MAX_UTILIZATION"}
_SPECULATIVE: Final = {
    "ngram": ("NGramDecodingConfig",),
    "draft": ("DraftTargetDecodingConfig",),
    "eagle3": ("Eagle3DecodingConfig", "EagleDecodingConfig"),  # releases up to 1.2 know the second alone
    "mtp": ("MTPDecodingConfig",),
}


def check_settings(settings: TrtllmSettings, checkpoint: Checkpoint) -> None:
    """Raises BadRequestError for settings that don't go together."""
    _check_speculative(settings)
    if settings.kv_host_bytes and not settings.block_reuse:
        raise BadRequestError(
            "kv_host_bytes keeps blocks for reuse, and block_reuse is false; set one of them otherwise"
        )
    if checkpoint.kind == "engine":
        given = [name for name in _NOT_FOR_ENGINES if getattr(settings, name)]
        if settings.speculative != "none":
            given.append("speculative")
        if given:
            raise BadRequestError(
                f"{', '.join(given)} can't be set for a folder of trtllm-build, which has them built in; leave them out"
            )
        if settings.tokenizer is None and not checkpoint.has_tokenizer:
            raise BadRequestError("an engine folder has no tokenizer; set TRITONRAG_TRTLLM_TOKENIZER to the model's")


def llm_arguments(
    settings: TrtllmSettings, checkpoint: Checkpoint, adapters: Sequence[Adapter], library: Library, gpus: int
) -> dict[str, Any]:
    """The keyword arguments of `LLM`. `gpus`: how many this instance was given by name, 0: none was named."""
    arguments: dict[str, Any] = {
        "model": str(checkpoint.folder),
        "trust_remote_code": False,
        "tensor_parallel_size": settings.tensor_parallel,
        "pipeline_parallel_size": settings.pipeline_parallel,
        "kv_cache_config": _kv_cache(settings, library),
    }
    optional = {
        "tokenizer": str(settings.tokenizer or ""),
        "gpus_per_node": gpus,
        "moe_expert_parallel_size": settings.expert_parallel,
        "dtype": settings.dtype,
        "max_batch_size": settings.max_batch_size,
        "max_num_tokens": settings.max_num_tokens,
        "max_seq_len": settings.max_seq_len,
        "enable_chunked_prefill": settings.chunked_prefill,
        "stream_interval": settings.stream_interval,
        "sampler_type": settings.sampler,
        "guided_decoding_backend": settings.guided_decoding,
        "return_perf_metrics": settings.perf_metrics,
        "scheduler_config": _scheduler(settings, library),
        "speculative_config": _speculative(settings, library),
    }
    arguments |= {name: value for name, value in optional.items() if value}
    if adapters:
        arguments |= {"enable_lora": True, "lora_config": _lora(settings, adapters, library)}
    return arguments


def samples_with_speculation(settings: TrtllmSettings, library: Library) -> bool:
    """Whether a temperature above 0 is honoured: before 1.3 eagle3 and mtp take the likeliest token always."""
    if settings.speculative not in ("eagle3", "mtp"):
        return True
    return "allow_advanced_sampling" in _speculative_class(settings, library).model_fields


def _kv_cache(settings: TrtllmSettings, library: Library) -> Foreign:
    optional = {
        "free_gpu_memory_fraction": settings.kv_fraction,
        "max_tokens": settings.kv_max_tokens,
        "dtype": settings.kv_dtype,
        "tokens_per_block": settings.kv_tokens_per_block,
        "host_cache_size": settings.kv_host_bytes,
    }
    given = {name: value for name, value in optional.items() if value}
    return library.configs.KvCacheConfig(enable_block_reuse=settings.block_reuse, **given)


def _scheduler(settings: TrtllmSettings, library: Library) -> Foreign:
    if not settings.scheduler:
        return None
    policy = getattr(library.configs.CapacitySchedulerPolicy, _POLICIES[settings.scheduler])
    return library.configs.SchedulerConfig(capacity_scheduler_policy=policy)


def _lora(settings: TrtllmSettings, adapters: Sequence[Adapter], library: Library) -> Foreign:
    # Without lora_dir: the library reads the modules of one folder alone from it, and then a tokenizer too.
    optional = {"max_loras": settings.max_loras, "max_cpu_loras": settings.max_cpu_loras}
    return library.configs.LoraConfig(
        lora_target_modules=target_modules(adapters),
        max_lora_rank=settings.max_lora_rank or max(adapter.rank for adapter in adapters),
        **{name: value for name, value in optional.items() if value},
    )


def _speculative(settings: TrtllmSettings, library: Library) -> Foreign:
    if settings.speculative == "none":
        return None
    kind = _speculative_class(settings, library)
    if settings.speculative == "mtp":
        arguments: dict[str, Any] = {"num_nextn_predict_layers": settings.max_draft_len or 1}
    else:
        arguments = {"max_draft_len": settings.max_draft_len}
    if settings.ngram_size:
        arguments["max_matching_ngram_size"] = settings.ngram_size
    if settings.draft_model is not None:
        newer = "speculative_model" in kind.model_fields  # the name since 1.3
        arguments["speculative_model" if newer else "speculative_model_dir"] = str(settings.draft_model)
    if settings.speculative in ("eagle3", "mtp") and samples_with_speculation(settings, library):
        arguments["allow_advanced_sampling"] = True
    return kind(**arguments)


def _speculative_class(settings: TrtllmSettings, library: Library) -> Foreign:
    for name in _SPECULATIVE[settings.speculative]:
        kind = getattr(library.configs, name, None)
        if kind is not None:
            return kind
    raise BadRequestError(
        f"tensorrt_llm {library.version} knows no speculative decoding {settings.speculative!r}; choose another or none"
    )


def _check_speculative(settings: TrtllmSettings) -> None:
    how = settings.speculative
    has_draft = settings.draft_model is not None
    if (how in ("draft", "eagle3")) != has_draft:
        raise BadRequestError(
            f"speculative is {how!r} with{'' if has_draft else 'out'} draft_model; draft and eagle3 need one, others take none"
        )
    if how in ("ngram", "draft", "eagle3") and not settings.max_draft_len:
        raise BadRequestError(
            f"speculative is {how!r} without max_draft_len; set how many tokens to guess ahead, such as 4"
        )
    if how == "none" and settings.max_draft_len:
        raise BadRequestError("max_draft_len is set and speculative is 'none'; choose ngram, draft, eagle3 or mtp")
    if (how == "ngram") != bool(settings.ngram_size):
        raise BadRequestError(
            f"speculative is {how!r} and ngram_size {settings.ngram_size}; ngram needs one, others none"
        )
    if has_draft and settings.draft_model is not None and not settings.draft_model.is_dir():
        raise BadRequestError("TRITONRAG_TRTLLM_DRAFT_MODEL names no folder; download the guessing model there first")
