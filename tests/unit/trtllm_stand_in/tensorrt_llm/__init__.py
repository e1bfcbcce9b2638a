"""Stands in for TensorRT-LLM, which can't run without a GPU, at the calls that our engine makes and nowhere else.

Names and parameters as in the public source of release 1.2; whatever is not among them is refused. Text is streamed cumulatively,
token by token, as the real one does. A test steers it through `SCRIPT`.
"""

from tensorrt_llm.script import SCRIPT

__version__ = "1.2.1"
__all__ = ["SCRIPT", "__version__"]
