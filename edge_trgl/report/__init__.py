"""The report of a run: plain data in, one offline HTML page out."""

from edge_trgl.report.document import (
    MAX_AGAINST,
    Balance,
    DepthAccuracy,
    EarlyExit,
    Event,
    ExportedFile,
    IoSample,
    LossPoint,
    MemorySample,
    ModuleMemory,
    OtherRun,
    Report,
)
from edge_trgl.report.page import render

__all__ = [
    "MAX_AGAINST",
    "Balance",
    "DepthAccuracy",
    "EarlyExit",
    "Event",
    "ExportedFile",
    "IoSample",
    "LossPoint",
    "MemorySample",
    "ModuleMemory",
    "OtherRun",
    "Report",
    "render",
]
