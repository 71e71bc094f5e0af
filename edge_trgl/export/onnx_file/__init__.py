"""ONNX files larger than memory, written and read as streams."""
