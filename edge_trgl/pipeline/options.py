"""What an export is asked for, from the command line to the jobs."""

from __future__ import annotations

from dataclasses import dataclass

from edge_trgl.config.export_request import Form, leaving_of
from edge_trgl.runtime.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """What to export, in the words of the command line; `edge_trgl.config.export_request` parses them.

    Attributes:
        depth: in modules, or chosen, last or all.
        target: the runtime that will run the model; None for the profile's.
        batch: samples at a time, or dynamic.
        exits: the confidence at which to leave early, or auto:POINTS of accuracy to lose; None for no stages.
        stages: the depths where stages end; None for every one with a classifier.
        forms: of the smaller files to write beside model.onnx.
    """

    depth: str = "chosen"
    target: str | None = None
    batch: str = "dynamic"
    exits: str | None = None
    stages: str | None = None
    forms: tuple[Form, ...] = ()

    def check(self) -> None:
        """Check that the options go together.

        Raises:
            UsageError: `exits` is not valid, or `stages` is given without it.
        """
        if self.exits is not None:
            leaving_of(self.exits)
        elif self.stages is not None:
            raise UsageError("--stages goes with --exits", hint="--exits 0.9 writes the network in stages.")
