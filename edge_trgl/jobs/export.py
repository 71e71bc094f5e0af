"""The job `export`: write the ONNX model of a trained run, not yet published."""

from edge_trgl.export.write_models import write_models as run

__all__ = ["run"]
