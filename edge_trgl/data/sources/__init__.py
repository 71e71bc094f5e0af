"""Sources of images: one small file for each format, and one function that finds out which format it is."""

from edge_trgl.data.sources.find import load
from edge_trgl.data.sources.source import IMAGE_FOLDERS, Groups, Source, Split

__all__ = ["IMAGE_FOLDERS", "Groups", "Source", "Split", "load"]
