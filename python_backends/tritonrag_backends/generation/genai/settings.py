"""Settings of the `onnxruntime_genai` engine. By itself, so that reading the settings loads no library."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class GenaiSettings(BaseModel):
    """A language model from a local folder on CPU or GPU."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: Path = Field(
        default=Path(".tritonrag/generator"), description="folder written by `tritonrag export generator`"
    )
    execution: Literal["cpu", "cuda"] = "cpu"
    devices: str = Field(
        default="",
        description='GPU of each generator instance where execution is cuda: "0;1"; empty: the first for all',
    )
    threads: int = Field(default=0, ge=0, description="ONNX Runtime threads; 0: as many as cores")
    batch: int = Field(
        default=4, ge=1, description="generations that share a run, where the model can't batch by itself"
    )
    lanes: int = Field(default=2, ge=1, description="batches that run in turn, where the model can't batch by itself")
    max_waiting: int = Field(default=256, ge=0, description="generations that may wait for a place")
    start_timeout_s: float = Field(default=300, gt=0, description="seconds that loading may take")
