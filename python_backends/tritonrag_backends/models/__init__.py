"""The TritonPythonModel classes: tensors in, an inner call, tensors out."""
