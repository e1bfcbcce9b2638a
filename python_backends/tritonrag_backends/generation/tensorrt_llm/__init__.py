"""The `tensorrt_llm` engine: the LLM API of TensorRT-LLM, in this process."""
