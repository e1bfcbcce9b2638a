"""Settings of the `tensorrt_llm` engine. By itself, so that reading the settings loads no library."""

from pydantic import BaseModel, ConfigDict, Field


class TrtllmSettings(BaseModel):
    """A model for TensorRT-LLM's LLM API, and how it uses the GPUs. 0 or "" leaves a choice to the library."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field(default="", description="checkpoint folder, plain or quantised, or an engine folder")
