"""The job `smaller`: write model.onnx as int8 or fp16, and publish it if it is accurate enough."""

from edge_trgl.export.smaller_models import write_smaller as run

__all__ = ["run"]
