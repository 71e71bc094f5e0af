"""The report of a run: plain data in, one offline HTML page out."""

from edge_trgl.report.document import (
    Balance,
    DepthAccuracy,
    EarlyExit,
    Event,
    ExportedFile,
    IoSample,
    LossPoint,
    MemorySample,
    ModuleMemory,
    Report,
)
from edge_trgl.report.page import render

__all__ = [
    "Balance",
    "DepthAccuracy",
    "EarlyExit",
    "Event",
    "ExportedFile",
    "IoSample",
    "LossPoint",
    "MemorySample",
    "ModuleMemory",
    "Report",
    "render",
]
