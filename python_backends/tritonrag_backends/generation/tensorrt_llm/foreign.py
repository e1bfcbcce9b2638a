"""The type of what comes out of TensorRT-LLM, which ships none that can be checked without it."""

from typing import Any, TypeAlias

Foreign: TypeAlias = Any
