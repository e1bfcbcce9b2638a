"""Settings of prompts. By itself, so that reading the settings loads nothing."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator


class PromptSettings(BaseModel):
    """How question and passages become a prompt."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    template: str = Field(
        default="default", description="name of a built-in template, or the path of a file of yours (.toml)"
    )
    order: Literal["canonical", "rank"] = Field(
        default="canonical", description="order of passages; canonical: by id, so that KV caches are reused"
    )
    max_tokens: int = Field(default=0, ge=0, description="longest prompt; 0: what the model's context leaves")
    fence_key: SecretStr = Field(
        default=SecretStr(""), description="key of the fences; empty: another one in each process"
    )

    @field_validator("template")
    @classmethod
    def _absolute(cls, template: str) -> str:
        """A path as seen from here: the model's process may have another working directory."""
        return str(Path(template).absolute()) if is_path(template) else template


def is_path(template: str) -> bool:
    """Whether the setting `template` means a file rather than a built-in template."""
    return "/" in template or template.endswith(".toml")
