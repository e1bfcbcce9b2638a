"""The one settings tree of the serving side; every leaf is an environment variable `TRITONRAG_...`.

Triton starts each model in a process of its own, so the environment is how settings travel: `tritonrag serve` writes this tree
into it (`to_environment`), each model reads it back (`load_settings`). Nested leaves join their names with one underscore:
`embedder.threads` is TRITONRAG_EMBEDDER_THREADS.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from tritonrag_client.errors import BadRequestError

ENV_PREFIX = "TRITONRAG_"


class EmbedderSettings(BaseModel):
    """The embedding model and how it uses the machine."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: Path = Field(default=Path(".tritonrag/embedder"), description="folder written by `tritonrag export embedder`")
    precision: Literal["int8", "fp32"] = "int8"
    threads: int = Field(default=1, ge=1, description="ONNX Runtime threads in each embedder instance")


class RetrieverSettings(BaseModel):
    """The index and how it is searched."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    threads: int = Field(default=1, ge=1, description="FAISS threads in each retriever instance")
    num_passages: int = Field(default=5, ge=1, description="passages per question where a request does not say")


class GeneratorSettings(BaseModel):
    """The generation engine."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    engine: Literal["extractive"] = "extractive"
    max_tokens: int = Field(default=256, ge=1, description="tokens per answer where a request does not say")


class LimitSettings(BaseModel):
    """What a single request may ask for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    text_bytes: int = Field(default=32_768, ge=1, description="UTF-8 bytes of one text_input")
    filter_bytes: int = Field(default=16_384, ge=1, description="UTF-8 bytes of one filter")
    num_passages: int = Field(default=100, ge=1)
    max_tokens: int = Field(default=4096, ge=1)


class Settings(BaseSettings):
    """All of it. Unknown keys are refused by `load_settings`."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, env_nested_delimiter="_", env_nested_max_split=1, frozen=True, extra="forbid"
    )

    index: Path = Field(default=Path(".tritonrag/index"), description="index directory")
    embedder: EmbedderSettings = EmbedderSettings()
    retriever: RetrieverSettings = RetrieverSettings()
    generator: GeneratorSettings = GeneratorSettings()
    limits: LimitSettings = LimitSettings()

    def to_environment(self) -> dict[str, str]:
        """The variables that make `load_settings` return this value again; paths made absolute."""
        variables = {f"{ENV_PREFIX}INDEX": str(self.index.absolute())}
        for section in _SECTIONS:
            for name, value in getattr(self, section):
                text = str(value.absolute()) if isinstance(value, Path) else str(value)
                variables[f"{ENV_PREFIX}{section}_{name}".upper()] = text
        return variables


_SECTIONS = ("embedder", "retriever", "generator", "limits")


def known_variables() -> frozenset[str]:
    """The names of every environment variable that this tree reads."""
    return frozenset(Settings.model_construct().to_environment())


def load_settings(environment: Mapping[str, str] | None = None) -> Settings:
    """Read the tree from the process's environment; raises BadRequestError that names the variable, its value and the way out.

    Variables with our prefix that belong to a section of this tree but name no leaf are refused; those of other
    programs of ours (TRITONRAG_URL, TRITONRAG_HTTP_PORT, ...) are theirs to check.
    """
    environment = os.environ if environment is None else environment
    sections = tuple(f"{ENV_PREFIX}{section}_".upper() for section in _SECTIONS)
    for name in sorted(environment):
        if name.startswith(sections) and name not in known_variables():
            raise BadRequestError(f"the environment variable {name} is not one of ours; did you mean one of {sorted(known_variables())}?")
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors()[0]
        name = ENV_PREFIX + "_".join(str(part) for part in first["loc"]).upper()
        raise BadRequestError(f"{name} is {first['input']!r}: {first['msg']}") from error
