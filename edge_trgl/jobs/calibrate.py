"""The job `calibrate`: choose the thresholds of an early exit by what the stages answer."""

from edge_trgl.export.early_exit.search import choose_thresholds as run

__all__ = ["run"]
