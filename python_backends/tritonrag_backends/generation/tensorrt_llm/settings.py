"""Settings of the `tensorrt_llm` engine. By itself, so that reading the settings loads no library."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr


class TrtllmSettings(BaseModel):
    """A model for TensorRT-LLM's LLM API, and how it uses the GPUs. 0 or "" leaves a choice to the library."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: Path | None = Field(
        default=None, description="checkpoint folder, plain or quantised, or an engine folder of trtllm-build"
    )
    tokenizer: Path | None = Field(default=None, description="folder of the tokenizer, where the model's has none")
    devices: str = Field(
        default="", description='GPUs of each generator instance: "0,1;2,3"; empty: one instance, all that it needs'
    )
    tensor_parallel: int = Field(default=1, ge=1, description="GPUs that share each layer")
    pipeline_parallel: int = Field(default=1, ge=1, description="groups of layers, each on GPUs of its own")
    expert_parallel: int = Field(default=0, ge=0, description="GPUs that the experts are dealt out to")
    dtype: Literal["", "auto", "float16", "bfloat16", "float32"] = Field(
        default="", description="of weights that are not quantised"
    )
    max_batch_size: int = Field(default=0, ge=0, description="generations that run at once")
    max_num_tokens: int = Field(default=0, ge=0, description="tokens that one step computes, over all generations")
    max_seq_len: int = Field(default=0, ge=0, description="tokens of prompt and answer together; 0: the model's")
    max_waiting: int = Field(default=256, ge=0, description="generations that may wait for a place")
    chunked_prefill: bool = Field(default=False, description="let a prompt take several steps")
    scheduler: Literal["", "guaranteed_no_evict", "max_utilization"] = Field(
        default="", description="whether a started generation may be set back when KV memory runs out"
    )
    stream_interval: int = Field(default=0, ge=0, description="tokens from one delta to the next")
    sampler: Literal["", "TRTLLMSampler", "TorchSampler"] = Field(
        default="", description="who samples; with TRTLLMSampler a seed repeats an answer"
    )
    kv_fraction: float = Field(default=0, ge=0, lt=1, description="of the GPU memory left, what the KV cache takes")
    kv_max_tokens: int = Field(default=0, ge=0, description="tokens that the KV cache holds at most")
    kv_dtype: Literal["", "auto", "fp8", "nvfp4"] = Field(default="", description="of keys and values")
    kv_tokens_per_block: int = Field(default=0, ge=0, description="tokens in the unit of reuse")
    kv_host_bytes: int = Field(default=0, ge=0, description="main memory for blocks that the GPU has no room for")
    block_reuse: bool = Field(default=True, description="keep keys and values of prompts for those that begin alike")
    salt_key: SecretStr = Field(
        default=SecretStr(""), description="keeps tenants' reuse apart; empty: a random one in each process"
    )
    lora_dir: Path | None = Field(default=None, description="folder with a folder for each PEFT adapter")
    max_loras: int = Field(default=0, ge=0, description="adapters in GPU memory")
    max_cpu_loras: int = Field(default=0, ge=0, description="adapters in main memory")
    max_lora_rank: int = Field(default=0, ge=0, description="0: the highest rank in lora_dir")
    speculative: Literal["none", "ngram", "draft", "eagle3", "mtp"] = Field(
        default="none", description="how tokens are guessed ahead"
    )
    draft_model: Path | None = Field(default=None, description="the guessing model's folder, for draft and eagle3")
    max_draft_len: int = Field(default=0, ge=0, description="tokens guessed ahead; for mtp its layers")
    ngram_size: int = Field(default=0, ge=0, description="tokens that ngram looks for in the prompt")
    guided_decoding: Literal["", "xgrammar", "llguidance"] = Field(
        default="", description="grammar library to load; requests can't ask for a grammar yet"
    )
    perf_metrics: bool = Field(default=False, description="have the library time each request")
