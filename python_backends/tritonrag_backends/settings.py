"""The one settings tree of the serving side; every leaf is an environment variable `TRITONRAG_...`.

Triton starts each model in a process of its own, so the environment is how settings travel: `tritonrag serve` writes this tree
into it (`to_environment`), each model reads it back (`load_settings`). Nested leaves join their names with one underscore:
`embedder.threads` is TRITONRAG_EMBEDDER_THREADS. A variable that is set to nothing counts as not set.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from tritonrag_backends.choices import EngineName
from tritonrag_backends.environment import ENV_PREFIX, is_ours
from tritonrag_backends.generation.cache_settings import CacheSettings
from tritonrag_backends.generation.genai.settings import GenaiSettings
from tritonrag_backends.generation.openai.settings import OpenaiSettings
from tritonrag_backends.generation.tensorrt_llm.settings import TrtllmSettings
from tritonrag_backends.prompting.settings import PromptSettings
from tritonrag_client.errors import BadRequestError


class EmbedderSettings(BaseModel):
    """The embedding model and how it uses the machine."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: Path = Field(
        default=Path(".tritonrag/embedder"), description="folder written by `tritonrag export embedder`"
    )
    precision: Literal["int8", "fp32"] = "int8"
    threads: int = Field(default=1, ge=1, description="ONNX Runtime threads in each embedder instance")
    instances: int = Field(
        default=0,
        ge=0,
        description="processes of `embedder`, and of `retrieve` where it embeds; profile cpu; 0: one a core, at most 16",
    )


class EncoderSettings(BaseModel):
    """The embedding model on a GPU: profile gpu, where `embedder` is `tokenizer`, then `encoder`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    runtime: Literal["auto", "onnxruntime", "tensorrt", "python"] = Field(
        default="auto",
        description="Triton's ONNX Runtime or TensorRT backend, or ONNX Runtime in a Python model; auto: the first that is there",
    )
    execution: Literal["auto", "cpu", "cuda", "tensorrt"] = Field(
        default="auto",
        description="where ONNX Runtime computes; auto: TensorRT and CUDA where there is a GPU, else the CPU",
    )
    instances: int = Field(default=1, ge=1, description="instances on each GPU")
    buckets: str = Field(
        default="16,32,64,128,256",
        description="lengths in tokens to which texts are padded, each an optimisation profile",
    )
    cache_dir: Path = Field(
        default=Path(".tritonrag/tensorrt"), description="where TensorRT keeps built engines and timings"
    )


class RetrieveSettings(BaseModel):
    """How `retrieve` is put together."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    fused: bool = Field(
        default=True,
        description="embed and search in one process; false: by `embedder`, then `retriever`, as in profile gpu",
    )


class RetrieverSettings(BaseModel):
    """The index and how it is searched."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    threads: int = Field(
        default=0,
        ge=0,
        description="FAISS threads in each retriever instance; 0: half of the cores, shared out to the instances",
    )
    instances: int = Field(default=1, ge=1, description="processes that search, on each GPU where they search on GPUs")
    device: Literal["auto", "cpu", "gpu"] = Field(
        default="auto", description="where vectors are searched; auto: on GPUs in profile gpu where FAISS sees one"
    )
    devices: str = Field(default="", description='GPUs to search on: "0,1"; empty: all that are visible')
    placement: Literal["replicate", "shard"] = Field(
        default="replicate", description="the whole index on each GPU, or each GPU a part of it"
    )
    gpu_kind: Literal["auto", "flat", "ivf_flat", "ivf_pq", "cagra"] = Field(
        default="auto", description="FAISS index on a GPU; auto: what is nearest to the segment's own kind"
    )
    gpu_fp16: bool = Field(
        default=True, description="vectors in 2 bytes a value on the GPU; answers are scored in FP32"
    )
    gpu_temp_bytes: int = Field(
        default=256 * 2**20, ge=0, description="GPU memory that FAISS keeps for each search thread's work"
    )
    num_passages: int = Field(default=5, ge=1, description="passages per question where a request does not say")
    poll_s: float = Field(
        default=0.5, gt=0, le=3600, description="seconds between two looks for a new version of the index"
    )
    cache_bytes: int = Field(
        default=32 * 2**20,
        ge=0,
        description="memory for answers known already in each retriever instance; 0: keep none",
    )


class GeneratorSettings(BaseModel):
    """The generation engine."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    engine: EngineName = "extractive"
    instances: int = Field(default=1, ge=1, description="processes that generate; with GPUs, each on GPUs of its own")
    max_tokens: int = Field(default=256, ge=1, description="tokens per answer where a request does not say")
    temperature: float = Field(
        default=0.0, ge=0, le=100, description="where a request does not say; 0: the likeliest token"
    )
    first_token_timeout_s: float = Field(
        default=90, gt=0, le=86_400, description="seconds for which an engine may write nothing before it is given up"
    )
    next_token_timeout_s: float = Field(
        default=30,
        gt=0,
        le=86_400,
        description="seconds for which an engine may pause in mid-answer before it is given up",
    )
    timeout_s: float = Field(
        default=300, gt=0, le=86_400, description="seconds that an answer may take, whatever its request says"
    )


class LimitSettings(BaseModel):
    """What a single request may ask for, and how many requests there may be."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    text_bytes: int = Field(default=32_768, ge=1, description="UTF-8 bytes of one text_input")
    filter_bytes: int = Field(default=16_384, ge=1, description="UTF-8 bytes of one filter")
    num_passages: int = Field(default=100, ge=1)
    max_tokens: int = Field(default=4096, ge=1)
    history_bytes: int = Field(default=65_536, ge=1, description="UTF-8 bytes of one history")
    passages_bytes: int = Field(
        default=16 * 2**20, ge=1, description="bytes of all passages together that come with a question to `generator`"
    )
    stop_words: int = Field(default=16, ge=1, description="stop words of one answer")
    stop_word_bytes: int = Field(default=256, ge=1, description="UTF-8 bytes of one stop word")
    waiting: int = Field(
        default=256,
        ge=1,
        description="questions that may wait for an instance of a model that batches; more are refused",
    )
    wait_s: float = Field(
        default=2,
        gt=0,
        le=86_400,
        description="seconds for which a question may be expected to wait there; more are refused",
    )
    answers: int = Field(default=256, ge=1, description="answers that an instance of `generator` may work on at a time")


class SupervisorSettings(BaseModel):
    """How `tritonrag serve` watches over Triton and its processes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    enabled: bool = Field(default=True, description="false: nothing is watched, and a Triton that ends is the end")
    interval_s: float = Field(default=0.8, gt=0, le=60, description="seconds between two canaries of a stage")
    late_s: float = Field(default=0.7, gt=0, le=60, description="seconds after which a canary is late")
    repair_timeout_s: float = Field(
        default=8.0,
        gt=0,
        le=3600,
        description="seconds that reloading a model may take before Triton is restarted; or twice its own start, 10 min at most",
    )
    failed_starts: int = Field(default=5, ge=1, description="starts of Triton that may fail in a row before serve ends")


class Settings(BaseSettings):
    """All of it. Made directly it holds what is given and defaults; only `load_settings` reads an environment.

    Unknown keys are refused.
    """

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, env_nested_delimiter="_", env_nested_max_split=1, frozen=True, extra="forbid"
    )

    index: Path = Field(default=Path(".tritonrag/index"), description="index directory")
    embedder: EmbedderSettings = EmbedderSettings()
    encoder: EncoderSettings = EncoderSettings()
    retriever: RetrieverSettings = RetrieverSettings()
    retrieve: RetrieveSettings = RetrieveSettings()
    generator: GeneratorSettings = GeneratorSettings()
    genai: GenaiSettings = GenaiSettings()
    openai: OpenaiSettings = OpenaiSettings()
    trtllm: TrtllmSettings = TrtllmSettings()
    prompt: PromptSettings = PromptSettings()
    cache: CacheSettings = CacheSettings()
    limits: LimitSettings = LimitSettings()
    supervisor: SupervisorSettings = SupervisorSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - pydantic-settings' signature
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """What is given, and nothing that happens to stand in the process's environment: `load_settings` says which one counts."""
        return (init_settings,)

    def to_environment(self) -> dict[str, str]:
        """The variables that make `load_settings` return this value again; paths made absolute."""
        variables = {f"{ENV_PREFIX}INDEX": str(self.index.absolute())}
        for section in _SECTIONS:
            for name, value in getattr(self, section):
                variables[f"{ENV_PREFIX}{section}_{name}".upper()] = _as_text(value)
        return variables


_SECTIONS = (
    "embedder", "encoder", "retriever", "retrieve", "generator", "genai", "openai", "trtllm", "prompt", "cache", "limits",
    "supervisor",
)  # fmt: skip


def _as_text(value: object) -> str:
    """A leaf as a variable's value; an empty one counts as not set, and so stands for None."""
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, Path):
        return str(value.absolute())
    return "" if value is None else str(value)


def known_variables() -> frozenset[str]:
    """The names of every environment variable that this tree reads."""
    return frozenset(Settings.model_construct().to_environment())


def load_settings(environment: Mapping[str, str] | None = None) -> Settings:
    """Read the tree from an environment (None: the process's); raises BadRequestError that names the variable and the way out.

    Variables with our prefix that belong to a section of this tree but name no leaf are refused; those of other
    programs of ours (TRITONRAG_URL, TRITONRAG_HTTP_PORT, ...) are theirs to check.
    """
    environment = os.environ if environment is None else environment
    given = {name: value for name, value in environment.items() if is_ours(name, value)}
    known = known_variables()
    _refuse_unknown(given, known)
    source = EnvSettingsSource(Settings)
    source.env_vars = {name.lower(): value for name, value in given.items() if name in known}
    try:
        return Settings(**source())
    except ValidationError as error:
        first = error.errors()[0]
        name = ENV_PREFIX + "_".join(str(part) for part in first["loc"]).upper()
        raise BadRequestError(f"{name} is {first['input']!r}: {first['msg']}") from error


def _refuse_unknown(given: Mapping[str, str], known: frozenset[str]) -> None:
    sections = tuple(f"{ENV_PREFIX}{section}".upper() for section in _SECTIONS)
    for name in sorted(given):
        # The bare section would be read as JSON of all its leaves: two ways to say one thing, so it is refused.
        if (name in sections or name.startswith(tuple(f"{section}_" for section in sections))) and name not in known:
            raise BadRequestError(
                f"the environment variable {name} is not one of ours; did you mean one of {sorted(known)}?"
            )
