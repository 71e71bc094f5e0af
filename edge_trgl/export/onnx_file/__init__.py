"""ONNX files written and read as streams, larger than memory."""
