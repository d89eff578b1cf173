"""TorchServe with our handler, and the KServe gateway before it."""
