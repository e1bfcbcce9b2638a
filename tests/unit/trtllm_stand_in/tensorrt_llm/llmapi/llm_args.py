"""The configuration classes; unknown keywords are refused, as the real ones do."""

from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True, protected_namespaces=())


class KvCacheConfig(Strict):
    enable_block_reuse: bool = True
    max_tokens: int | None = None
    free_gpu_memory_fraction: float | None = 0.9
    host_cache_size: int | None = None
    dtype: str = "auto"
    tokens_per_block: int = 32


class LoraConfig(Strict):
    lora_dir: list[str] = []
    max_lora_rank: int = 64
    max_loras: int | None = None
    max_cpu_loras: int | None = None
    lora_target_modules: list[str] = []


class CapacitySchedulerPolicy(StrEnum):
    MAX_UTILIZATION = "MAX_UTILIZATION"
    GUARANTEED_NO_EVICT = "GUARANTEED_NO_EVICT"


class SchedulerConfig(Strict):
    capacity_scheduler_policy: CapacitySchedulerPolicy = CapacitySchedulerPolicy.GUARANTEED_NO_EVICT


class NGramDecodingConfig(Strict):
    max_draft_len: int | None = None
    max_matching_ngram_size: int = 0


class DraftTargetDecodingConfig(Strict):
    max_draft_len: int | None = None
    speculative_model_dir: str | None = None


class EagleDecodingConfig(Strict):
    max_draft_len: int | None = None
    speculative_model_dir: str | None = None


class MTPDecodingConfig(Strict):
    num_nextn_predict_layers: int = 1


class LlmArgs(Strict):
    model: str
    trust_remote_code: bool = False
    tensor_parallel_size: int = 1
    pipeline_parallel_size: int = 1
    gpus_per_node: int | None = None
    moe_expert_parallel_size: int | None = None
    tokenizer: str | None = None
    dtype: str = "auto"
    max_batch_size: int | None = 2048
    max_num_tokens: int | None = 8192
    max_seq_len: int | None = None
    kv_cache_config: KvCacheConfig = KvCacheConfig()
    enable_chunked_prefill: bool = False
    enable_lora: bool = False
    lora_config: LoraConfig | None = None
    stream_interval: int = 1
    sampler_type: str = "auto"
    guided_decoding_backend: str | None = None
    return_perf_metrics: bool = False
    scheduler_config: SchedulerConfig = SchedulerConfig()
    speculative_config: Any = None
