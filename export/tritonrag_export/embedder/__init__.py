"""Prepare an embedding model for serving: weights to ONNX (fp32 and int8), checked against an independent reference."""
