"""Benchmarks of memory, time and accuracy against plain PyTorch or onnxruntime."""
