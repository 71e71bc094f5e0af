"""Readings of sensors in CSV files: the columns, the recordings, and the windows that are cut from them."""

from edge_trgl.data.sources.readings.description import is_table
from edge_trgl.data.sources.readings.load import FILE_NAMES, detect, load, load_samples

__all__ = ["FILE_NAMES", "detect", "is_table", "load", "load_samples"]
