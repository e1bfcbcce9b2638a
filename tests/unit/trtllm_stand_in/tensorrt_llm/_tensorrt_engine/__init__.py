"""The older path, which loads folders of trtllm-build."""

from tensorrt_llm.llmapi import LLM

__all__ = ["LLM"]
