"""Vector quantization of arrays; knows nothing of models."""
