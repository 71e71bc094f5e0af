"""Modules traced to ONNX graphs, and joined."""
