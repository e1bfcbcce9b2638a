"""Talk to tritonrag: contract, errors, and gRPC clients."""
