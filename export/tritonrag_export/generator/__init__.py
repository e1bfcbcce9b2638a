"""Prepare a language model for serving: a checkpoint to ONNX Runtime GenAI (with LoRA adapters), or to one for TensorRT-LLM."""
