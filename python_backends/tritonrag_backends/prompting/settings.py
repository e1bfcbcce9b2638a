"""Settings of prompts. By itself, so that reading the settings loads nothing."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr


class PromptSettings(BaseModel):
    """How question and passages become a prompt."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    template: str = Field(default="default", description="name of a built-in template, or the path of a file of yours")
    order: Literal["canonical", "rank"] = Field(
        default="canonical", description="order of passages; canonical: by id, so that KV caches are reused"
    )
    max_tokens: int = Field(default=0, ge=0, description="longest prompt; 0: what the model's context leaves")
    fence_key: SecretStr = Field(
        default=SecretStr(""), description="key of the fences; empty: another one in each process"
    )
