"""Where images come from: one small file a format, one function that finds the format."""

from edge_trgl.data.sources.find import load
from edge_trgl.data.sources.source import FOLDERS, Source, Split

__all__ = ["FOLDERS", "Source", "Split", "load"]
