"""Settings of the answer cache. By itself, so that reading the settings loads nothing."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr


class CacheSettings(BaseModel):
    """Answers that are known already."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    store: Literal["off", "memory", "redis"] = "off"
    max_bytes: int = Field(default=64 * 2**20, ge=1, description="memory for answers in store memory")
    ttl_s: float = Field(default=3600, gt=0, description="seconds for which an answer is kept")
    redis_url: SecretStr = Field(
        default=SecretStr("redis://127.0.0.1:6379/0"), description="may hold a password: never logged"
    )
    redis_timeout_s: float = Field(default=0.05, gt=0, description="seconds that Redis may take; after that, a miss")
