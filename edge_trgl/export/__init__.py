"""Export: one trained network to one ONNX file, proved against the network it came from."""

from edge_trgl.export.comparison import Comparison, compare, publish
from edge_trgl.export.deployed import Deployed, describe
from edge_trgl.export.onnx_file import write

__all__ = ["Comparison", "Deployed", "compare", "describe", "publish", "write"]
