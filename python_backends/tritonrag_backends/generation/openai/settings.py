"""Settings of the `openai` engine. By itself, so that reading the settings loads no library."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, SecretStr


class OpenaiSettings(BaseModel):
    """An OpenAI-compatible server, and how long and how often it is asked."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str = Field(default="", description="the server's address up to /v1: http://127.0.0.1:8080/v1")
    model: str = Field(default="", description="the model's name at that server")
    api_key: SecretStr = Field(
        default=SecretStr(""), description="sent as a bearer token, never logged; without it OPENAI_API_KEY is taken"
    )
    tokenizer: Path | None = Field(
        default=None, description="the model's tokenizer.json; without it tokens are estimated"
    )
    context_tokens: int = Field(default=4096, ge=64, description="tokens of prompt and answer together")
    cache_salt: bool = Field(
        default=False,
        description="keep tenants apart in the server's prompt cache; vLLM and trtllm-serve can, strict servers refuse it",
    )
    connect_timeout_s: float = Field(default=5, gt=0, le=86_400, description="seconds that connecting may take")
    first_token_timeout_s: float = Field(
        default=60, gt=0, le=86_400, description="seconds until the first token, all tries together"
    )
    total_timeout_s: float = Field(
        default=300, gt=0, le=86_400, description="seconds that an answer may take, waiting for a connection included"
    )
    attempts: int = Field(default=3, ge=1, description="tries of one answer, all before its first token")
    max_connections: int = Field(default=256, ge=1, description="answers that may run at once; more wait")
    max_waiting: int = Field(default=256, ge=0, description="answers that may wait for a connection")
    breaker_failures: int = Field(default=5, ge=1, description="failures in a row after which the server is left alone")
    breaker_open_s: float = Field(default=10, gt=0, le=86_400, description="seconds for which it is")
